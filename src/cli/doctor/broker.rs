//! The topics and subscriptions of a broker: whether they are there and as they must be, and with
//! `--create` making those that are not there.

use super::report::{Check, Report};
use crate::{
    audit::Attempt,
    config::QueueKind,
    db::Db,
    domain::{SystemClock, audit::Action, errors},
    queue::{
        QueueError,
        pubsub::PubSub,
        resources::{Found, Resource},
    },
};

const NAME: &str = "broker";
/// How what is made can be written down.
const MIGRATE_FIRST: &str = "what is made is written down in the audit log: mend the database, or run \
                             `nucleus migrate`, and then this again";

/// Where it is written down what is made, or why it cannot be; nothing where nothing is to be made.
type Create<'a> = Option<Result<&'a Db, &'static str>>;

/// Looks at each of them, and makes what is missing where that is asked for.
pub(super) async fn all(report: &mut Report, kind: &QueueKind, create: Create<'_>) {
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
    create: Create<'_>,
) -> Result<Option<Check>, QueueError> {
    let title = resource.title();
    let line = resource.gcloud_line(pubsub.project_id());
    match pubsub.look(resource).await? {
        Found::Well => Ok(None),
        Found::Missing => {
            let missing = format!("{title} is not there");
            match create {
                None => {
                    let mend = format!("`nucleus doctor --create`, or: {line}");
                    Ok(Some(Check::fail(NAME, missing, mend)))
                }
                Some(Ok(db)) => make(pubsub, resource, db).await.map(Some),
                Some(Err(reason)) => {
                    let detail = format!("{missing}, and is not made: {reason}");
                    Ok(Some(Check::fail(NAME, detail, MIGRATE_FIRST)))
                }
            }
        }
        Found::Other(differences) => {
            let detail = format!("{title}: {}", differences.join("; "));
            let mend = format!("change it, or delete it and make it as it must be: {line}");
            Ok(Some(Check::warn(NAME, detail, mend)))
        }
    }
}

/// Makes one, which is written down before.
async fn make(pubsub: &PubSub, resource: Resource, db: &Db) -> Result<Check, QueueError> {
    let title = resource.title();
    let attempt = Attempt::begin(db, &SystemClock, None, Action::BrokerCreate, &title).await;
    let attempt = match attempt {
        Ok(attempt) => attempt,
        Err(error) => {
            let detail = format!("{title} was not made: {}", errors::chain(&error));
            return Ok(Check::fail(NAME, detail, MIGRATE_FIRST));
        }
    };
    let made = pubsub.create(resource).await;
    attempt.end(made.is_ok(), &title).await;
    made?;
    Ok(Check::ok(NAME, format!("{title} was made")))
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
