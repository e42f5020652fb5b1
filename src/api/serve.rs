//! Listening and leaving: the server behind the router.

use std::sync::Arc;

use axum::{ServiceExt, extract::Request};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower_http::normalize_path::NormalizePathLayer;

use super::router;
use crate::app::App;

/// Serves until `shutdown`; requests under way are answered first.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    // Around the router, because a path is matched before the router's own layers see it.
    let public_url = match &app.public_url {
        Some(url) => url.to_string(),
        None => format!("http://{}", listener.local_addr()?),
    };
    let service = NormalizePathLayer::trim_trailing_slash().layer(router(app, &public_url));
    axum::serve(listener, ServiceExt::<Request>::into_make_service(service))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}
