# What `nucleus doctor` looks for; a test holds this file against the program's own list.

locals {
  topics = {
    dead_letter = "nucleus-sync-dead-letter"
    requests    = "nucleus-sync-requests"
    ticks       = "nucleus-sync-ticks"
    analysis    = "nucleus-dna-analysis"
  }
  # Untaken messages are kept for a week. Of ticks the next is as good.
  week        = "604800s"
  ten_minutes = "600s"
}

resource "google_pubsub_topic" "dead_letter" {
  name = local.topics.dead_letter

  depends_on = [google_project_service.this]
}

resource "google_pubsub_topic" "requests" {
  name = local.topics.requests

  depends_on = [google_project_service.this]
}

resource "google_pubsub_topic" "ticks" {
  name = local.topics.ticks

  depends_on = [google_project_service.this]
}

resource "google_pubsub_topic" "analysis" {
  name = local.topics.analysis

  depends_on = [google_project_service.this]
}

resource "google_pubsub_subscription" "worker" {
  name                       = "nucleus-sync-worker"
  topic                      = google_pubsub_topic.requests.id
  ack_deadline_seconds       = 60
  message_retention_duration = local.week

  # Never: by default a quiet month ends a subscription.
  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # The program's own count of a run's failures comes first; this is for what kills every worker before
  # it can count.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter.id
    max_delivery_attempts = 20
  }
}

resource "google_pubsub_subscription" "dead_letter_reader" {
  name                       = "nucleus-sync-dead-letter-reader"
  topic                      = google_pubsub_topic.dead_letter.id
  ack_deadline_seconds       = 60
  message_retention_duration = local.week

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
}

resource "google_pubsub_subscription" "scheduler" {
  name                       = "nucleus-sync-scheduler"
  topic                      = google_pubsub_topic.ticks.id
  ack_deadline_seconds       = 60
  message_retention_duration = local.ten_minutes

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
}

# For the DNA Engine; nucleus never reads it.
resource "google_pubsub_subscription" "dna_engine" {
  name                       = "nucleus-dna-engine"
  topic                      = google_pubsub_topic.analysis.id
  ack_deadline_seconds       = 60
  message_retention_duration = local.week
  filter                     = "attributes.event_type = \"dna_analysis_requested\""

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
}
