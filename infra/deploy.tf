# Who may deploy: the main branch of one repository, by the identity that GitHub gives its workflow. There
# is no key that could leak.

locals {
  is_deploying = var.github_repository != null ? 1 : 0
}

resource "google_service_account" "deploy" {
  count = local.is_deploying

  account_id   = "nucleus-deploy"
  display_name = "Deploys nucleus"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool" "github" {
  count = local.is_deploying

  workload_identity_pool_id = "nucleus-github"
  display_name              = "GitHub"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count = local.is_deploying

  workload_identity_pool_id          = google_iam_workload_identity_pool.github[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub Actions"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }
  attribute_condition = "assertion.repository == \"${var.github_repository}\" && assertion.ref == \"refs/heads/main\""

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "deploy_by_github" {
  count = local.is_deploying

  service_account_id = google_service_account.deploy[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[0].name}/attribute.repository/${var.github_repository}"
}

resource "google_artifact_registry_repository_iam_member" "deploy" {
  count = local.is_deploying

  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.deploy[0].member
}

# Change and run what is there; make nothing, and set nobody's permissions.
resource "google_project_iam_custom_role" "deploy" {
  count = local.is_deploying

  role_id = "nucleusDeploy"
  title   = "nucleus: deploy"
  permissions = [
    "run.executions.get",
    "run.executions.list",
    "run.jobs.get",
    "run.jobs.run",
    "run.jobs.update",
    "run.operations.get",
    "run.revisions.get",
    "run.revisions.list",
    "run.services.get",
    "run.services.update",
    "run.tasks.get",
    "run.tasks.list",
    "run.workerpools.get",
    "run.workerpools.update",
  ]
}

resource "google_project_iam_member" "deploy" {
  count = local.is_deploying

  project = var.project_id
  role    = google_project_iam_custom_role.deploy[0].id
  member  = google_service_account.deploy[0].member
}

# A revision runs as its role's account, and only who may act as that account may make one.
resource "google_service_account_iam_member" "deploy_as" {
  for_each = local.is_deploying == 0 ? {} : {
    api     = google_service_account.api.name
    worker  = google_service_account.worker.name
    migrate = google_service_account.migrate.name
    command = google_service_account.command.name
  }

  service_account_id = each.value
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.deploy[0].member
}
