variable "project_id" {
  description = "The Google Cloud project that holds everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project id is 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Where everything runs. Cloud Run with worker pools, Cloud SQL and Cloud Scheduler must be offered there."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region is written like europe-west1."
  }
}

variable "image" {
  description = "The image that the roles are made with, by digest. Without it all is made but what runs it. Later deployments change the image themselves, and Terraform leaves it."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by its digest: …@sha256:…, so that all roles run the same one."
  }
}

variable "public_url" {
  description = "How browsers reach the API, without a slash at the end. OAuth redirects go there. By default the address that Cloud Run gives."
  type        = string
  default     = null

  validation {
    condition     = var.public_url == null || can(regex("^https://[^/]+$", var.public_url))
    error_message = "It begins with https:// and has no path."
  }
}

variable "oauth_client_ids" {
  description = "The OAuth clients, by service: { gmail = \"1-a.apps.googleusercontent.com\" }. Their secrets go into Secret Manager by hand. An account of a service without a client cannot be connected in a browser."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for service in keys(var.oauth_client_ids) : contains(keys(local.client_secrets), service)])
    error_message = "The services are gmail, github, google_calendar, notion, slack, google_drive, linkedin, twitter and spotify."
  }
  validation {
    condition = alltrue([
      for service, id in var.oauth_client_ids : endswith(id, ".apps.googleusercontent.com")
      if contains(["gmail", "google_calendar", "google_drive"], service)
    ])
    error_message = "A client id of Google ends with .apps.googleusercontent.com."
  }
}

variable "workers" {
  description = "Instances of the worker pool. Each runs `runs_per_worker` syncs at the same time."
  type        = number
  default     = 2

  validation {
    condition     = var.workers >= 1 && var.workers <= 100 && floor(var.workers) == var.workers
    error_message = "1 to 100."
  }
}

variable "runs_per_worker" {
  description = "Sync runs that one worker executes at the same time. Twice as many connections and two more serve them well."
  type        = number
  default     = 4

  validation {
    condition     = var.runs_per_worker >= 1 && var.runs_per_worker <= 64 && floor(var.runs_per_worker) == var.runs_per_worker
    error_message = "1 to 64."
  }
}

variable "api_max_instances" {
  description = "The API grows to so many instances."
  type        = number
  default     = 3

  validation {
    condition     = var.api_max_instances >= 1 && var.api_max_instances <= 100 && floor(var.api_max_instances) == var.api_max_instances
    error_message = "1 to 100."
  }
}

variable "connections_per_process" {
  description = "Database connections of one process. During a deployment the old and the new instances hold theirs."
  type        = number
  default     = 10

  validation {
    condition     = var.connections_per_process >= 4 && var.connections_per_process <= 100 && floor(var.connections_per_process) == var.connections_per_process
    error_message = "4 to 100."
  }
}

variable "database_version" {
  description = "Cloud SQL's name of the PostgreSQL release, 15 or newer."
  type        = string
  default     = "POSTGRES_17"

  validation {
    condition     = can(regex("^POSTGRES_(1[5-9]|[2-9][0-9])$", var.database_version))
    error_message = "POSTGRES_15 or newer."
  }
}

variable "database_tier" {
  description = "The database's machine: db-custom-VCPUS-MEGABYTES."
  type        = string
  default     = "db-custom-2-7680"
}

variable "database_max_connections" {
  description = "PostgreSQL's max_connections. Memory bounds it: about 10 MB each."
  type        = number
  default     = 200
}

variable "database_highly_available" {
  description = "Whether a second zone stands by. It doubles the database's price."
  type        = bool
  default     = true
}

variable "secret_locations" {
  description = "Regions that hold what is in Secret Manager, credentials included. Empty: Google chooses."
  type        = list(string)
  default     = []
}

variable "dna_engine_members" {
  description = "Who reads the DNA-analysis events, as IAM writes members, for instance serviceAccount:dna@example.iam.gserviceaccount.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for member in var.dna_engine_members : can(regex("^(serviceAccount|group|user|principal|principalSet):", member))])
    error_message = "Each begins with serviceAccount:, group:, user:, principal: or principalSet:."
  }
}

variable "alert_email" {
  description = "Who is told when an alert goes off. Without it the alerts are only shown."
  type        = string
  default     = null

  validation {
    condition     = var.alert_email == null || can(regex("^[^@]+@[^@]+$", var.alert_email))
    error_message = "That is no address."
  }
}

variable "otlp_endpoint" {
  description = "An OpenTelemetry collector that takes OTLP over HTTP, such as http://10.8.0.100:4318. Without it there are no traces."
  type        = string
  default     = null

  validation {
    condition     = var.otlp_endpoint == null || can(regex("^https?://[^/]", var.otlp_endpoint))
    error_message = "It begins with http:// or https://."
  }
}

variable "github_repository" {
  description = "The repository, OWNER/NAME, whose main branch may deploy. Without it no workflow may."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "It is written OWNER/NAME."
  }
}
