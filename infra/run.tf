# The roles. All are one image; deployments change it (`gcloud run … update --image`), so Terraform sets
# it once and then leaves it.

locals {
  is_running = var.image != null ? 1 : 0
  public_url = coalesce(var.public_url, "https://nucleus-serve-${local.project_number}.${var.region}.run.app")

  # Where the secrets are mounted: a folder each, since each is a volume.
  database = {
    NUCLEUS_DATABASE__URL_FILE        = "/secrets/database-url/value"
    NUCLEUS_DATABASE__MAX_CONNECTIONS = tostring(var.connections_per_process)
  }
  everywhere = merge(local.database, {
    NUCLEUS_QUEUE__KIND          = "pubsub"
    NUCLEUS_QUEUE__PROJECT_ID    = var.project_id
    NUCLEUS_SECRETS__KIND        = "gcp"
    NUCLEUS_SECRETS__PROJECT_ID  = var.project_id
    NUCLEUS_SECRETS__REPLICATION = length(var.secret_locations) == 0 ? "automatic" : join(",", var.secret_locations)
    }, {
    for service, id in var.oauth_client_ids : "NUCLEUS_SERVICES__${upper(service)}__CLIENT_ID" => id
    }, {
    for service, id in var.oauth_client_ids :
    "NUCLEUS_SERVICES__${upper(service)}__CLIENT_SECRET_FILE" => "/secrets/${trimprefix(local.client_secrets[service], "nucleus-")}/value"
  })
  answering = merge(local.everywhere, {
    NUCLEUS_HTTP__OPERATOR_KEY_FILE = "/secrets/operator-key/value"
    NUCLEUS_HTTP__PUBLIC_URL        = local.public_url
    NUCLEUS_HTTP__TRUSTED_PROXIES   = "1"
  })
  traces = var.otlp_endpoint == null ? {} : { NUCLEUS_TELEMETRY__OTLP_ENDPOINT = var.otlp_endpoint }
  settings = {
    migrate = local.database
    worker  = merge(local.everywhere, local.traces, { NUCLEUS_SYNC__MAX_CONCURRENT_RUNS = tostring(var.runs_per_worker) })
    api     = merge(local.answering, local.traces)
    command = local.answering
  }
  mounts = {
    for account, names in local.readers : account => [for name in names : trimprefix(name, "nucleus-")]
  }
}

# Runs once as it is made, and by each deployment before anything else changes.
resource "google_cloud_run_v2_job" "migrate" {
  count = local.is_running

  name                = "nucleus-migrate"
  location            = var.region
  deletion_protection = false
  run_execution_token = "first"

  template {
    template {
      service_account = google_service_account.migrate.email
      max_retries     = 0
      timeout         = "3600s"

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = google_compute_network.this.id
          subnetwork = google_compute_subnetwork.run.id
        }
      }

      containers {
        image = var.image
        args  = ["migrate"]

        dynamic "env" {
          for_each = local.settings.migrate
          content {
            name  = env.key
            value = env.value
          }
        }
        dynamic "volume_mounts" {
          for_each = local.mounts.migrate
          content {
            name       = volume_mounts.value
            mount_path = "/secrets/${volume_mounts.value}"
          }
        }
      }

      dynamic "volumes" {
        for_each = local.mounts.migrate
        content {
          name = volumes.value
          secret {
            secret = "nucleus-${volumes.value}"
            items {
              version = "latest"
              path    = "value"
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version, template[0].template[0].containers[0].image]
  }

  depends_on = [google_secret_manager_secret_iam_member.reader, google_secret_manager_secret_version.database_ca]
}

resource "google_cloud_run_v2_worker_pool" "work" {
  count = local.is_running

  name                = "nucleus-work"
  location            = var.region
  deletion_protection = false

  scaling {
    manual_instance_count = var.workers
  }

  template {
    service_account = google_service_account.worker.email

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = google_compute_network.this.id
        subnetwork = google_compute_subnetwork.run.id
      }
    }

    containers {
      image = var.image
      args  = ["work"]

      resources {
        limits = {
          cpu    = "1"
          memory = "1Gi"
        }
      }
      dynamic "env" {
        for_each = local.settings.worker
        content {
          name  = env.key
          value = env.value
        }
      }
      dynamic "volume_mounts" {
        for_each = local.mounts.worker
        content {
          name       = volume_mounts.value
          mount_path = "/secrets/${volume_mounts.value}"
        }
      }
    }

    dynamic "volumes" {
      for_each = local.mounts.worker
      content {
        name = volumes.value
        secret {
          secret = "nucleus-${volumes.value}"
          items {
            version = "latest"
            path    = "value"
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version, template[0].containers[0].image]
  }

  depends_on = [
    google_cloud_run_v2_job.migrate,
    google_project_iam_member.credentials,
    google_pubsub_subscription_iam_member.subscriber,
    google_pubsub_topic_iam_member.publisher,
  ]
}

resource "google_cloud_run_v2_service" "serve" {
  count = local.is_running

  name                = "nucleus-serve"
  location            = var.region
  deletion_protection = false
  ingress             = "INGRESS_TRAFFIC_ALL"
  # nucleus knows its callers by keys of its own, and browsers come back from OAuth without any.
  invoker_iam_disabled = true

  template {
    service_account = google_service_account.api.email
    # A run is watched over one request for as long as it takes, up to the longest that Cloud Run holds.
    timeout = "3600s"

    scaling {
      min_instance_count = 1
      max_instance_count = var.api_max_instances
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = google_compute_network.this.id
        subnetwork = google_compute_subnetwork.run.id
      }
    }

    containers {
      image = var.image
      args  = ["serve"]

      ports {
        container_port = 8080
      }
      resources {
        # What a request began goes on when its client has hung up.
        cpu_idle = false
        limits = {
          cpu    = "1"
          memory = "512Mi"
        }
      }
      startup_probe {
        period_seconds    = 2
        failure_threshold = 30
        http_get {
          path = "/readyz"
        }
      }
      liveness_probe {
        period_seconds    = 15
        failure_threshold = 3
        http_get {
          path = "/livez"
        }
      }
      dynamic "env" {
        for_each = local.settings.api
        content {
          name  = env.key
          value = env.value
        }
      }
      dynamic "volume_mounts" {
        for_each = local.mounts.api
        content {
          name       = volume_mounts.value
          mount_path = "/secrets/${volume_mounts.value}"
        }
      }
    }

    dynamic "volumes" {
      for_each = local.mounts.api
      content {
        name = volumes.value
        secret {
          secret = "nucleus-${volumes.value}"
          items {
            version = "latest"
            path    = "value"
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version, template[0].containers[0].image]
  }

  depends_on = [
    google_cloud_run_v2_worker_pool.work,
    google_project_iam_member.credentials_creator,
    google_project_iam_member.credentials_remover,
  ]
}

# The operator's commands (`doctor`, `dead-letter`) where the database can be reached:
# gcloud run jobs execute nucleus-command --wait --args=doctor
resource "google_cloud_run_v2_job" "command" {
  count = local.is_running

  name                = "nucleus-command"
  location            = var.region
  deletion_protection = false

  template {
    template {
      service_account = google_service_account.command.email
      max_retries     = 0
      timeout         = "900s"

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = google_compute_network.this.id
          subnetwork = google_compute_subnetwork.run.id
        }
      }

      containers {
        image = var.image
        args  = ["doctor"]

        dynamic "env" {
          for_each = local.settings.command
          content {
            name  = env.key
            value = env.value
          }
        }
        dynamic "volume_mounts" {
          for_each = local.mounts.command
          content {
            name       = volume_mounts.value
            mount_path = "/secrets/${volume_mounts.value}"
          }
        }
      }

      dynamic "volumes" {
        for_each = local.mounts.command
        content {
          name = volumes.value
          secret {
            secret = "nucleus-${volumes.value}"
            items {
              version = "latest"
              path    = "value"
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version, template[0].template[0].containers[0].image]
  }

  depends_on = [
    google_cloud_run_v2_job.migrate,
    google_project_iam_member.command_looks,
    google_project_iam_member.credentials,
  ]
}
