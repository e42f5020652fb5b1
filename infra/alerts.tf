# What to wake somebody up for. ../prometheus/alerts.yml has more for those who run Prometheus: these go by
# what Google measures, and by nucleus's log.

resource "google_monitoring_notification_channel" "email" {
  count = var.alert_email != null ? 1 : 0

  display_name = "nucleus"
  type         = "email"
  labels = {
    email_address = var.alert_email
  }

  depends_on = [google_project_service.this]
}

locals {
  channels = google_monitoring_notification_channel.email[*].name
}

resource "google_monitoring_alert_policy" "backlog" {
  for_each = {
    (google_pubsub_subscription.worker.name)     = { seconds = 600, mend = "Raise `workers` or `runs_per_worker`; if the pool does not run, its log says why." }
    (google_pubsub_subscription.scheduler.name)  = { seconds = 300, mend = "No worker takes ticks, so nothing is synced by the clock: look into the log of the pool nucleus-work." }
    (google_pubsub_subscription.dna_engine.name) = { seconds = 3600, mend = "The DNA Engine does not take its events. After seven days Pub/Sub drops them; GET /events keeps them for 30." }
  }

  display_name = "nucleus: backlog of ${each.key}"
  combiner     = "OR"
  severity     = "CRITICAL"

  conditions {
    display_name = "The oldest message has waited for more than ${each.value.seconds} s"
    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${each.key}\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.seconds
      duration        = "300s"
      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content = each.value.mend
  }
  notification_channels = local.channels
}

# Given up by the broker: no worker could even take it.
resource "google_monitoring_alert_policy" "dead_letters" {
  display_name = "nucleus: dead letters"
  combiner     = "OR"
  severity     = "WARNING"

  conditions {
    display_name = "Pub/Sub gave a sync request up"
    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.worker.name}\" AND metric.type = \"pubsub.googleapis.com/subscription/dead_letter_message_count\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }
  conditions {
    display_name = "nucleus parked a run"
    condition_threshold {
      filter          = "resource.type = \"cloud_run_worker_pool\" AND metric.type = \"logging.googleapis.com/user/${google_logging_metric.parked.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }

  documentation {
    content = "`gcloud run jobs execute nucleus-command --wait --args=dead-letter,list` and read the job's log: each with its reason. `dead-letter redrive` asks for it again."
  }
  notification_channels = local.channels
}

resource "google_logging_metric" "parked" {
  name        = "nucleus/parked_runs"
  description = "Runs that were given up after too many failures of the worker"
  filter      = "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"nucleus-work\" AND jsonPayload.message=~\"^the run was parked\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.this]
}

# Refreshes that fail for good, by their reason. An outage of the provider is no such failure.
resource "google_logging_metric" "refreshes" {
  name        = "nucleus/failed_refreshes"
  description = "Runs that ended because no access token could be had"
  filter      = "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"nucleus-work\" AND jsonPayload.message=\"the run ended without being a success\" AND jsonPayload.\"error.code\"=(\"client_refused\" OR \"credentials_unreadable\" OR \"consent_expired\" OR \"access_revoked\")"
  label_extractors = {
    code = "EXTRACT(jsonPayload.\"error.code\")"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    labels {
      key        = "code"
      value_type = "STRING"
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "refreshes" {
  display_name = "nucleus: failed refreshes"
  combiner     = "OR"
  severity     = "CRITICAL"

  # One person who withdraws access is no alarm; all of them at once are.
  conditions {
    display_name = "More than ten people's accounts in an hour"
    condition_threshold {
      filter          = "resource.type = \"cloud_run_worker_pool\" AND metric.type = \"logging.googleapis.com/user/${google_logging_metric.refreshes.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 10
      duration        = "0s"
      aggregations {
        alignment_period     = "3600s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
  # These are ours to mend, whoever's account it was.
  conditions {
    display_name = "The client is refused, or credentials cannot be read"
    condition_threshold {
      filter          = "resource.type = \"cloud_run_worker_pool\" AND metric.type = \"logging.googleapis.com/user/${google_logging_metric.refreshes.name}\" AND metric.labels.code = one_of(\"client_refused\", \"credentials_unreadable\")"
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "`client_refused`: oauth_client_ids or the secret nucleus-SERVICE-client-secret is wrong. `credentials_unreadable`: the worker may not read nucleus-credentials-*, or somebody destroyed a version. `consent_expired` and `access_revoked` in number: the OAuth client was deleted, or is still in Testing."
  }
  notification_channels = local.channels
}

resource "google_monitoring_uptime_check_config" "api" {
  count = local.is_running

  display_name = "nucleus: the API"
  timeout      = "10s"
  period       = "60s"

  http_check {
    path         = "/readyz"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }
  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project_id
      host       = trimprefix(local.public_url, "https://")
    }
  }
}

resource "google_monitoring_alert_policy" "api" {
  count = local.is_running

  display_name = "nucleus: the API is not ready"
  combiner     = "OR"
  severity     = "CRITICAL"

  conditions {
    display_name = "/readyz fails from most places"
    condition_threshold {
      filter          = "resource.type = \"uptime_url\" AND metric.type = \"monitoring.googleapis.com/uptime_check/check_passed\" AND metric.labels.check_id = \"${google_monitoring_uptime_check_config.api[0].uptime_check_id}\""
      comparison      = "COMPARISON_LT"
      threshold_value = 0.5
      duration        = "180s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_FRACTION_TRUE"
        cross_series_reducer = "REDUCE_MEAN"
      }
    }
  }

  documentation {
    content = "`curl ${local.public_url}/health` names the part that is not well."
  }
  notification_channels = local.channels
}

resource "google_monitoring_alert_policy" "database_disk" {
  display_name = "nucleus: the database's disk"
  combiner     = "OR"
  severity     = "WARNING"

  conditions {
    display_name = "Nine tenths are used"
    condition_threshold {
      filter          = "resource.type = \"cloudsql_database\" AND resource.labels.database_id = \"${var.project_id}:${google_sql_database_instance.this.name}\" AND metric.type = \"cloudsql.googleapis.com/database/disk/utilization\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0.9
      duration        = "1800s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content = "The disk grows by itself; if it does not, its quota or limit is reached."
  }
  notification_channels = local.channels
}
