# Each minute a tick; a worker makes one pass of the scheduler of it, whichever gets it.
resource "google_cloud_scheduler_job" "tick" {
  name        = "nucleus-tick"
  description = "Asks nucleus to request what is due"
  region      = var.region
  schedule    = "* * * * *"
  time_zone   = "Etc/UTC"

  # Published by Cloud Scheduler's own service agent, which may do so in its project: no account of ours.
  pubsub_target {
    topic_name = google_pubsub_topic.ticks.id
    data       = base64encode("{}")
    attributes = {
      event_type = "tick"
    }
  }
}
