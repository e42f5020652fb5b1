# `terraform test`: everything is made of a provider that answers and makes nothing, so it costs nothing and
# needs no account.

mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789012"
    }
  }
}

variables {
  project_id = "example-project"
  image      = "europe-west1-docker.pkg.dev/example-project/nucleus/nucleus@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  oauth_client_ids = {
    gmail           = "1-a.apps.googleusercontent.com"
    google_calendar = "1-a.apps.googleusercontent.com"
    github          = "Iv1.0123456789abcdef"
  }
  github_repository  = "example/nucleus"
  alert_email        = "ops@example.com"
  otlp_endpoint      = "http://10.8.0.100:4318"
  dna_engine_members = ["serviceAccount:dna@example-project.iam.gserviceaccount.com"]
}

# The first: what it makes is held against the program by the tests of nucleus.
run "everything" {
  assert {
    condition     = output.api_url == "https://nucleus-serve-123456789012.europe-west1.run.app"
    error_message = "The address that Cloud Run gives."
  }
}

run "nothing_runs_without_an_image" {
  command = plan

  variables {
    image             = null
    github_repository = null
    alert_email       = null
  }

  assert {
    condition = length(concat(
      google_cloud_run_v2_job.migrate, google_cloud_run_v2_job.command,
      google_cloud_run_v2_worker_pool.work, google_cloud_run_v2_service.serve,
      google_service_account.deploy, google_iam_workload_identity_pool_provider.github,
      google_monitoring_notification_channel.email,
    )) == 0
    error_message = "Something is made too early, or for nobody."
  }
}

run "without_a_client_its_empty_secret_is_not_mounted" {
  command = plan

  variables {
    oauth_client_ids = { github = "Iv1.0123456789abcdef" }
  }

  assert {
    condition     = [for volume in google_cloud_run_v2_service.serve[0].template[0].volumes : volume.name if endswith(volume.name, "-client-secret")] == ["github-client-secret"]
    error_message = "An empty secret cannot be mounted, and one that is there must be."
  }
}

run "a_service_that_nobody_knows_is_refused" {
  command = plan

  variables {
    oauth_client_ids = { gmial = "1-a.apps.googleusercontent.com" }
  }

  expect_failures = [var.oauth_client_ids]
}

run "a_client_of_google_is_told_by_its_name" {
  command = plan

  variables {
    oauth_client_ids = { google_drive = "Iv1.0123456789abcdef" }
  }

  expect_failures = [var.oauth_client_ids]
}

run "secrets_stay_in_their_regions" {
  command = plan

  variables {
    secret_locations = ["europe-west1", "europe-west4"]
  }

  assert {
    condition     = toset(google_secret_manager_secret.this["nucleus-operator-key"].replication[0].user_managed[0].replicas[*].location) == toset(var.secret_locations)
    error_message = "Secrets are where they must not be."
  }
  assert {
    condition     = contains([for env in google_cloud_run_v2_worker_pool.work[0].template[0].containers[0].env : env.value if env.name == "NUCLEUS_SECRETS__REPLICATION"], "europe-west1,europe-west4")
    error_message = "The program does not know where secrets may be."
  }
}

run "an_image_is_named_by_its_digest" {
  command = plan

  variables {
    image = "europe-west1-docker.pkg.dev/example-project/nucleus/nucleus:latest"
  }

  expect_failures = [var.image]
}

run "processes_do_not_ask_for_more_connections_than_there_are" {
  command = plan

  variables {
    workers = 20
  }

  expect_failures = [google_sql_database_instance.this]
}
