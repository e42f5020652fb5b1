resource "google_sql_database_instance" "this" {
  name                = "nucleus"
  region              = var.region
  database_version    = var.database_version
  deletion_protection = true

  settings {
    tier                        = var.database_tier
    edition                     = "ENTERPRISE"
    availability_type           = var.database_highly_available ? "REGIONAL" : "ZONAL"
    disk_type                   = "PD_SSD"
    disk_autoresize             = true
    deletion_protection_enabled = true

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.this.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      start_time                     = "02:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    # A Sunday night, after the backup.
    maintenance_window {
      day          = 7
      hour         = 4
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled = true
    }

    database_flags {
      name  = "max_connections"
      value = tostring(var.database_max_connections)
    }
  }

  lifecycle {
    precondition {
      condition     = 2 * (var.workers + var.api_max_instances) * var.connections_per_process + 20 <= var.database_max_connections
      error_message = "During a deployment old and new instances hold connections: raise database_max_connections, or lower connections_per_process."
    }
  }

  depends_on = [google_service_networking_connection.services]
}

resource "google_sql_database" "nucleus" {
  name     = "nucleus"
  instance = google_sql_database_instance.this.name
}

# The user is made by hand (README.md), so that no password is in Terraform's state.
