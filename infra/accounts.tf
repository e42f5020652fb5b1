# One service account a role, and what each may do. Nobody has a role on secrets beyond those named here,
# and no account has a key.

resource "google_service_account" "api" {
  account_id   = "nucleus-api"
  display_name = "nucleus serve"

  depends_on = [google_project_service.this]
}

resource "google_service_account" "worker" {
  account_id   = "nucleus-worker"
  display_name = "nucleus work"

  depends_on = [google_project_service.this]
}

resource "google_service_account" "migrate" {
  account_id   = "nucleus-migrate"
  display_name = "nucleus migrate"

  depends_on = [google_project_service.this]
}

# For the operator's commands (run.tf): it looks at everything, and carries out what is asked of it.
resource "google_service_account" "command" {
  account_id   = "nucleus-command"
  display_name = "nucleus doctor, nucleus dead-letter"

  depends_on = [google_project_service.this]
}

locals {
  # Who reads which of the secrets of secrets.tf.
  readers = {
    api     = concat(["nucleus-database-url", "nucleus-operator-key", "nucleus-database-ca"], local.used_client_secrets)
    worker  = concat(["nucleus-database-url", "nucleus-database-ca"], local.used_client_secrets)
    migrate = ["nucleus-database-url", "nucleus-database-ca"]
    command = concat(["nucleus-database-url", "nucleus-operator-key", "nucleus-database-ca"], local.used_client_secrets)
  }
  accounts = {
    api     = google_service_account.api.member
    worker  = google_service_account.worker.member
    migrate = google_service_account.migrate.member
    command = google_service_account.command.member
  }
  secret_ids = merge(
    { for name, secret in google_secret_manager_secret.this : name => secret.id },
    { "nucleus-database-ca" = google_secret_manager_secret.database_ca.id },
  )
  readings = merge([
    for account, names in local.readers : { for name in names : "${account} ${name}" => { account = account, name = name } }
  ]...)
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = local.readings

  secret_id = local.secret_ids[each.value.name]
  role      = "roles/secretmanager.secretAccessor"
  member    = local.accounts[each.value.account]
}

# Connected accounts' credentials: what the program calls on a secret, under names that begin as nucleus names
# them. Google's own roles for this are wider.
locals {
  only_credentials = "resource.name.startsWith(\"projects/${local.project_number}/secrets/nucleus-credentials-\")"
}

resource "google_project_iam_custom_role" "credentials" {
  role_id     = "nucleusCredentials"
  title       = "nucleus: keep credentials"
  description = "Add, read, list and destroy versions of a connected account's secret"
  permissions = [
    "secretmanager.versions.access",
    "secretmanager.versions.add",
    "secretmanager.versions.destroy",
    "secretmanager.versions.get",
    "secretmanager.versions.list",
  ]

  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "credentials" {
  for_each = { for account in ["api", "worker", "command"] : account => local.accounts[account] }

  project = var.project_id
  role    = google_project_iam_custom_role.credentials.id
  member  = each.value

  condition {
    title      = "nucleus-credentials"
    expression = local.only_credentials
  }
}

# An entity's removal deletes its secrets, and the API alone removes entities.
resource "google_project_iam_custom_role" "credentials_remover" {
  role_id     = "nucleusCredentialsRemover"
  title       = "nucleus: delete secrets of credentials"
  permissions = ["secretmanager.secrets.delete"]

  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "credentials_remover" {
  project = var.project_id
  role    = google_project_iam_custom_role.credentials_remover.id
  member  = google_service_account.api.member

  condition {
    title      = "nucleus-credentials"
    expression = local.only_credentials
  }
}

# Making a secret is asked of the project, before there is a name that a condition could look at. It reads
# nothing and changes nothing that is there. The worker connects no account, so it makes none.
resource "google_project_iam_custom_role" "credentials_creator" {
  role_id     = "nucleusCredentialsCreator"
  title       = "nucleus: make secrets for credentials"
  permissions = ["secretmanager.secrets.create"]

  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "credentials_creator" {
  project = var.project_id
  role    = google_project_iam_custom_role.credentials_creator.id
  member  = google_service_account.api.member
}

# The API publishes what it has just committed, the worker's relay the rest.
resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = {
    "api requests"    = { topic = google_pubsub_topic.requests.id, member = google_service_account.api.member }
    "api analysis"    = { topic = google_pubsub_topic.analysis.id, member = google_service_account.api.member }
    "worker requests" = { topic = google_pubsub_topic.requests.id, member = google_service_account.worker.member }
    "worker analysis" = { topic = google_pubsub_topic.analysis.id, member = google_service_account.worker.member }
    # Pub/Sub itself gives up what no worker could take.
    "agent dead_letter" = { topic = google_pubsub_topic.dead_letter.id, member = local.pubsub_agent }
  }

  topic  = each.value.topic
  role   = "roles/pubsub.publisher"
  member = each.value.member
}

resource "google_pubsub_subscription_iam_member" "subscriber" {
  for_each = {
    "worker worker"      = { subscription = google_pubsub_subscription.worker.name, member = google_service_account.worker.member }
    "worker scheduler"   = { subscription = google_pubsub_subscription.scheduler.name, member = google_service_account.worker.member }
    "worker dead_letter" = { subscription = google_pubsub_subscription.dead_letter_reader.name, member = google_service_account.worker.member }
    # To take a message away from the worker's subscription when it gives it up.
    "agent worker" = { subscription = google_pubsub_subscription.worker.name, member = local.pubsub_agent }
  }

  subscription = each.value.subscription
  role         = "roles/pubsub.subscriber"
  member       = each.value.member
}

# To see whether topics and subscriptions are there and as they must be.
resource "google_project_iam_member" "command_looks" {
  project = var.project_id
  role    = "roles/pubsub.viewer"
  member  = google_service_account.command.member
}

resource "google_pubsub_subscription_iam_member" "dna_engine" {
  for_each = toset(var.dna_engine_members)

  subscription = google_pubsub_subscription.dna_engine.name
  role         = "roles/pubsub.subscriber"
  member       = each.key
}
