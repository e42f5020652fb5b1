resource "google_artifact_registry_repository" "images" {
  repository_id = "nucleus"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of nucleus"

  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "keep the last"
    action = "KEEP"
    most_recent_versions {
      keep_count = 20
    }
  }
  cleanup_policies {
    id     = "delete the old"
    action = "DELETE"
    condition {
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.this]
}
