# What the processes are told in confidence. Terraform makes the secrets and never sees what is in them:
# README.md puts it there by hand.

locals {
  # Where the secret of each service's OAuth client is kept. All are there from the start, empty, which costs
  # nothing: a client can be added later without a moment in which its secret is mounted and not there.
  client_secrets = {
    for service in ["gmail", "github", "google_calendar", "notion", "slack", "google_drive", "linkedin", "twitter", "spotify"] :
    service => "nucleus-${replace(service, "_", "-")}-client-secret"
  }
  # An empty secret cannot be mounted.
  used_client_secrets = [for service in keys(var.oauth_client_ids) : local.client_secrets[service]]
}

resource "google_secret_manager_secret" "this" {
  for_each = toset(concat(["nucleus-database-url", "nucleus-operator-key"], values(local.client_secrets)))

  secret_id = each.key
  replication {
    dynamic "auto" {
      for_each = length(var.secret_locations) == 0 ? [true] : []
      content {}
    }
    dynamic "user_managed" {
      for_each = length(var.secret_locations) == 0 ? [] : [true]
      content {
        dynamic "replicas" {
          for_each = var.secret_locations
          content {
            location = replicas.value
          }
        }
      }
    }
  }

  depends_on = [google_project_service.this]
}

# The certificate by which the database is known. No secret, but mounted as one.
resource "google_secret_manager_secret" "database_ca" {
  secret_id = "nucleus-database-ca"
  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_version" "database_ca" {
  secret      = google_secret_manager_secret.database_ca.id
  secret_data = join("\n", google_sql_database_instance.this.server_ca_cert[*].cert)
}
