//! The topics and subscriptions of a broker: whether they are there and as they must be, and with
//! `--create` making those that are not there.

use super::report::{Check, Report};
use crate::{
    config::QueueKind,
    domain::errors,
    queue::{
        QueueError,
        pubsub::PubSub,
        resources::{Found, Resource},
    },
};

const NAME: &str = "broker";

/// Looks at each of them, and makes what is missing where that is asked for.
pub(super) async fn all(report: &mut Report, kind: &QueueKind, create: bool) {
    let QueueKind::PubSub {
        project_id,
        emulator,
    } = kind
    else {
        return report.add(Check::ok(
            NAME,
            "none is used: messages stay in the database",
        ));
    };
    let pubsub = match PubSub::new(project_id, emulator.as_deref()).await {
        Ok(pubsub) => pubsub,
        Err(error) => return report.add(away(&error)),
    };
    let mut well = 0;
    for resource in Resource::all() {
        match look(&pubsub, resource, create).await {
            Ok(None) => well += 1,
            Ok(Some(check)) => report.add(check),
            // The next question would be waited for as long.
            Err(error @ QueueError::Unavailable(_)) => return report.add(away(&error)),
            Err(error) => report.add(refused(resource, &error)),
        }
    }
    let place = match emulator {
        Some(endpoint) => format!("project {project_id} of the emulator at {endpoint}"),
        None => format!("project {project_id}"),
    };
    if well == Resource::all().count() {
        let detail = format!("all {well} topics and subscriptions are there, in {place}");
        report.add(Check::ok(NAME, detail));
    }
}

/// What is to be said of it; nothing where all is well.
async fn look(
    pubsub: &PubSub,
    resource: Resource,
    create: bool,
) -> Result<Option<Check>, QueueError> {
    let title = resource.title();
    let line = resource.gcloud_line(pubsub.project_id());
    match pubsub.look(resource).await? {
        Found::Well => Ok(None),
        Found::Missing if create => {
            pubsub.create(resource).await?;
            Ok(Some(Check::ok(NAME, format!("{title} was made"))))
        }
        Found::Missing => {
            let mend = format!("`nucleus doctor --create`, or: {line}");
            Ok(Some(Check::fail(
                NAME,
                format!("{title} is not there"),
                mend,
            )))
        }
        Found::Other(differences) => {
            let detail = format!("{title}: {}", differences.join("; "));
            let mend = format!("change it, or delete it and make it as it must be: {line}");
            Ok(Some(Check::warn(NAME, detail, mend)))
        }
    }
}

fn away(error: &QueueError) -> Check {
    Check::fail(
        NAME,
        errors::chain(error),
        "check NUCLEUS_QUEUE__PROJECT_ID and the credentials (`gcloud auth application-default \
         login`, or the service account of the process), or PUBSUB_EMULATOR_HOST",
    )
}

/// What this process may not find out may be in order.
fn refused(resource: Resource, error: &QueueError) -> Check {
    let mend =
        "give who runs this the role roles/pubsub.viewer, or roles/pubsub.editor for --create";
    let detail = format!("{}: {}", resource.title(), errors::chain(error));
    match error {
        QueueError::Denied(_) => Check::warn(NAME, detail, mend),
        _ => Check::fail(NAME, detail, mend),
    }
}
