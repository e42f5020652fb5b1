//! `/docs`: the OpenAPI document as a page. Its scripts and styles come out of the binary.

use std::sync::Arc;

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{Html, IntoResponse},
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_swagger_ui::Config;

use super::error::ApiError;

/// Scripts, styles and calls: this server's alone. Swagger UI carries its icons as `data:` addresses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nucleus API</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The document is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"#;

/// Without the null a page that is not on localhost would show a validator's badge from the internet.
const START: &str = r##"SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"##;

/// What the page loads.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub(super) enum File {
    #[serde(rename = "start.js")]
    Start,
    #[serde(rename = "swagger-ui-bundle.js")]
    Script,
    #[serde(rename = "swagger-ui.css")]
    Style,
    #[serde(rename = "favicon-32x32.png")]
    Icon,
}

/// The API as a page
///
/// Shows this document and tries its operations out. It loads nothing from elsewhere.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "About", security(()),
    responses((status = 200, description = "The page.", body = String,
               content_type = "text/html; charset=utf-8")))]
pub(super) async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

/// A script, style or picture of that page
#[utoipa::path(get, path = "/docs/{file}", operation_id = "docs_file", tag = "About", security(()),
    params(("file" = inline(File), Path, description = "The file's name.")),
    responses((status = 200, description = "The file.", content(
        (String = "text/javascript; charset=utf-8"),
        (String = "text/css; charset=utf-8"),
        (String = "image/png")))))]
pub(super) async fn file(
    file: Result<Path<File>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Path(file) = file.map_err(|_| ApiError::NotFound)?;
    let (name, kind) = match file {
        File::Start => ("", "text/javascript; charset=utf-8"),
        File::Script => ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        File::Style => ("swagger-ui.css", "text/css; charset=utf-8"),
        File::Icon => ("favicon-32x32.png", "image/png"),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if matches!(file, File::Start) {
        return Ok((headers, START.as_bytes().into()));
    }
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default()))
        .map_err(|error| ApiError::Internal(error.to_string()))?
        .ok_or(ApiError::NotFound)?;
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((headers, file.bytes))
}
