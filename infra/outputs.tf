output "api_url" {
  description = "Where the API answers."
  value       = local.public_url
}

output "redirect_uris" {
  description = "What is to be registered with the OAuth client of each service, letter by letter."
  value       = { for service in keys(local.client_secrets) : service => "${local.public_url}/integrations/${service}/oauth/callback" }
}

output "image_repository" {
  description = "Where images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}/nucleus"
}

output "database_instance" {
  description = "Cloud SQL's name of the database's instance."
  value       = google_sql_database_instance.this.name
}

output "database_address" {
  description = "The database's private address, for the secret nucleus-database-url."
  value       = google_sql_database_instance.this.private_ip_address
}

output "dna_engine_subscription" {
  description = "What the DNA Engine reads."
  value       = google_pubsub_subscription.dna_engine.id
}

output "workload_identity_provider" {
  description = "The deploy workflow's variable WORKLOAD_IDENTITY_PROVIDER."
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}

output "deploy_service_account" {
  description = "The deploy workflow's variable DEPLOY_SERVICE_ACCOUNT."
  value       = one(google_service_account.deploy[*].email)
}
