//! The secret store that the configuration names: the vault, or Secret Manager and what this process may
//! do there.

use std::sync::Arc;

use super::{folder, report::Check};
use crate::{
    app,
    config::Config,
    domain::{EntityId, ServiceName, errors},
    secrets::{SecretError, SecretManager, SecretName, SecretStore, gcp},
};

/// The store, if it can be used, and how it is.
pub(super) async fn look(config: &Config) -> (Option<Arc<dyn SecretStore>>, Check) {
    match app::secret_manager(config).await {
        Ok(Some(secrets)) => secret_manager(secrets).await,
        Ok(None) => {
            let (vault, check) = folder::vault(config).await;
            (vault.map(|vault| Arc::new(vault) as _), check)
        }
        Err(error) => (
            None,
            Check::fail_as_told("secret_manager", &error.to_string()),
        ),
    }
}

async fn secret_manager(secrets: SecretManager) -> (Option<Arc<dyn SecretStore>>, Check) {
    const NAME: &str = "secret_manager";
    // An entity's id is made by its time, and never this one.
    let nobody = SecretName::new(EntityId::from(uuid::Uuid::nil()), ServiceName::Gmail);
    let mut allowed = Vec::new();
    let mut refused = Vec::new();
    for probed in secrets.probe(&nobody).await {
        match probed.result {
            Ok(()) => allowed.push(probed.permission),
            Err(error) => refused.push((probed.permission, error)),
        }
    }
    let project = secrets.project_id().to_owned();
    let Some((_, first)) = refused.first() else {
        let detail = format!(
            "project {project} answers, and allows {}",
            allowed.join(", ")
        );
        return (Some(Arc::new(secrets)), Check::ok(NAME, detail));
    };
    let mend = gcp::mend(first).unwrap_or("look into the log");
    let is_about_permission = |error: &SecretError| matches!(error, SecretError::Denied { .. });
    if !refused.iter().all(|(_, error)| is_about_permission(error)) {
        return (None, Check::fail(NAME, errors::chain(first), mend));
    }
    let names: Vec<&str> = refused.iter().map(|(permission, _)| *permission).collect();
    let detail = format!(
        "project {project} does not allow {}: {}",
        names.join(", "),
        errors::chain(first)
    );
    let can_read = allowed.contains(&gcp::ACCESS);
    let secrets = can_read.then(|| Arc::new(secrets) as _);
    (secrets, Check::fail(NAME, detail, mend))
}
