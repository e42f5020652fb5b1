# The database has a private address alone; what runs on Cloud Run reaches it through this network.

resource "google_compute_network" "this" {
  name                    = "nucleus"
  auto_create_subnetworks = false

  depends_on = [google_project_service.this]
}

resource "google_compute_subnetwork" "run" {
  name    = "nucleus-run"
  network = google_compute_network.this.id
  region  = var.region
  # Cloud Run takes several addresses an instance, and holds those of old ones for a while.
  ip_cidr_range            = "10.8.0.0/22"
  private_ip_google_access = true
}

resource "google_compute_global_address" "services" {
  name          = "nucleus-services"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}
