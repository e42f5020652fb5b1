//! Terraform: its own format, its own checks against the provider's schema, and what it would make held
//! against the program: topics, settings, commands, permissions, log lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use nucleus::queue::resources::Resource as Needed;

use super::{
    assert_is_command, assert_settings,
    plan::{Made, Plan},
    words,
};

const WORKFLOW: &str = include_str!("../../../.github/workflows/deploy.yml");
const MANUAL: &str = include_str!("../../../docs/google-cloud.md");
const PERMISSIONS: &str = include_str!("../../../docs/secret-manager.md");
const GUIDE: &str = include_str!("../../../infra/README.md");

/// What is mounted where a `…_FILE` points to; the database's address is as the guide has it made.
fn content(secret: &str) -> String {
    match secret {
        "database-ca" => "-----BEGIN CERTIFICATE-----".to_owned(),
        "database-url" => {
            let after = GUIDE.split("printf 'postgres://").nth(1).unwrap();
            let pattern = after.split('\'').next().unwrap();
            let with_password = pattern.replacen("%s", "secret", 1);
            format!("postgres://{}", with_password.replacen("%s", "10.0.0.3", 1))
        }
        "operator-key" => "0123456789abcdef0123456789abcdef".to_owned(),
        other if other.ends_with("-client-secret") => "the-client-s-secret".to_owned(),
        other => panic!("nothing is known of {other}"),
    }
}

/// Terraform is asked once, as that takes seconds; each check says what it is about when it fails.
#[test]
fn terraform_is_valid_and_makes_what_the_program_needs() {
    let plan = Plan::read();
    terraform_makes_the_topics_and_subscriptions_that_the_program_needs(&plan);
    each_process_on_google_cloud_is_one_of_the_program_and_has_what_it_is_told(&plan);
    nobody_may_more_than_is_listed(&plan);
    the_alerts_look_for_what_the_program_logs(&plan);
    the_workflow_deploys_what_terraform_makes_and_holds_no_key(&plan);
    the_guide_names_what_there_is(&plan);
}

fn terraform_makes_the_topics_and_subscriptions_that_the_program_needs(plan: &Plan) {
    let mut made = BTreeSet::new();
    for topic in plan.all("google_pubsub_topic") {
        let name = topic.text("name");
        made.insert(format!("gcloud pubsub topics create {name} --project=x"));
    }
    for found in plan.all("google_pubsub_subscription") {
        let topic = plan.behind(found.text("topic")).unwrap();
        assert_eq!(
            found.values["expiration_policy"][0]["ttl"], "",
            "it would expire"
        );
        let retry = &found.values["retry_policy"][0];
        let mut line = format!(
            "gcloud pubsub subscriptions create {} --project=x --topic={} --ack-deadline={} \
             --message-retention-duration={} --expiration-period=never --min-retry-delay={} \
             --max-retry-delay={}",
            found.text("name"),
            topic.text("name"),
            found.values["ack_deadline_seconds"],
            found.text("message_retention_duration"),
            retry["minimum_backoff"].as_str().unwrap(),
            retry["maximum_backoff"].as_str().unwrap(),
        );
        let gives_up = &found.values["dead_letter_policy"][0];
        if let Some(topic) = gives_up["dead_letter_topic"].as_str() {
            let topic = plan.behind(topic).unwrap().text("name");
            let most = &gives_up["max_delivery_attempts"];
            line += &format!(" --dead-letter-topic={topic} --max-delivery-attempts={most}");
        }
        if let Some(filter) = found.values["filter"].as_str() {
            line += &format!(" --message-filter='{filter}'");
        }
        made.insert(line);
    }
    // What the doctor tells an operator to type.
    let needed: BTreeSet<String> = Needed::all().map(|it| it.gcloud_line("x")).collect();
    assert_eq!(made, needed);
    let tick = plan.all("google_cloud_scheduler_job").next().unwrap();
    let target = &tick.values["pubsub_target"][0];
    let topic = plan.behind(target["topic_name"].as_str().unwrap()).unwrap();
    assert_eq!(topic.text("name"), nucleus::domain::event::SYNC_TICKS);
    assert_eq!(target["attributes"]["event_type"], "tick");
}

fn each_process_on_google_cloud_is_one_of_the_program_and_has_what_it_is_told(plan: &Plan) {
    let mut processes = BTreeMap::new();
    for process in plan.processes() {
        assert_is_command(&process.command);
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        for (place, secret) in &process.mounts {
            let name = place.strip_prefix("/secrets/").unwrap();
            assert_eq!(secret, &format!("nucleus-{name}"));
            fs::create_dir(folder.path().join(name)).unwrap();
            let text = content(name).replace("/secrets", here);
            let file = folder.path().join(name).join("value");
            fs::write(&file, text).unwrap();
            // Here it is the process's own, and so its to guard.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let settings = process.settings.iter();
        let settings =
            settings.map(|(name, value)| (name.clone(), value.replace("/secrets", here)));
        assert_settings(settings.collect());
        let secrets = process
            .mounts
            .values()
            .cloned()
            .collect::<BTreeSet<String>>();
        processes.insert(
            process.name,
            (process.command.join(" "), process.account, secrets),
        );
    }
    let names: BTreeMap<&str, (&str, &str)> = processes
        .iter()
        .map(|(name, (command, account, _))| (*name, (command.as_str(), account.as_str())))
        .collect();
    let expected = [
        ("nucleus-command", ("doctor", "nucleus-command")),
        ("nucleus-migrate", ("migrate", "nucleus-migrate")),
        ("nucleus-serve", ("serve", "nucleus-api")),
        ("nucleus-work", ("work", "nucleus-worker")),
    ];
    assert_eq!(names, expected.into());
    // Who is given a secret may read it, and nobody else may.
    let mut readers: BTreeSet<(String, String)> = BTreeSet::new();
    for reader in plan.all("google_secret_manager_secret_iam_member") {
        assert_eq!(reader.text("role"), "roles/secretmanager.secretAccessor");
        let secret = plan.behind(reader.text("secret_id")).unwrap();
        readers.insert((
            plan.who(reader.text("member")),
            secret.text("secret_id").to_owned(),
        ));
    }
    let given = processes.into_values().flat_map(|(_, account, secrets)| {
        secrets
            .into_iter()
            .map(move |secret| (account.clone(), secret))
    });
    assert_eq!(readers, given.collect());
}

/// Who may do what on what, if not read the secrets of the settings; a custom role by its permissions.
fn grants(plan: &Plan) -> BTreeSet<(String, String, String)> {
    let mut grants = BTreeSet::new();
    for grant in &plan.made {
        let is_grant = grant.kind.ends_with("_iam_member");
        if !is_grant || grant.kind == "google_secret_manager_secret_iam_member" {
            continue;
        }
        let role = match plan.behind(grant.text("role")) {
            Some(custom) => words(&custom.values["permissions"]).join(" "),
            None => grant.text("role").to_owned(),
        };
        let on = [
            "topic",
            "subscription",
            "repository",
            "service_account_id",
            "project",
        ];
        let on = on
            .iter()
            .find_map(|key| grant.values[*key].as_str())
            .unwrap();
        let mut on = match plan.behind(on) {
            Some(made) if made.kind == "google_service_account" => made.text("account_id"),
            Some(made) if made.kind == "google_artifact_registry_repository" => "images",
            Some(made) => made.text("name"),
            None => on,
        }
        .to_owned();
        if let Some(condition) = grant.values["condition"][0]["expression"].as_str() {
            on = condition.to_owned();
        }
        grants.insert((plan.who(grant.text("member")), role, on));
    }
    grants
}

fn nobody_may_more_than_is_listed(plan: &Plan) {
    let credentials = "secretmanager.versions.access secretmanager.versions.add \
                       secretmanager.versions.destroy secretmanager.versions.get \
                       secretmanager.versions.list";
    let (create, delete) = (
        "secretmanager.secrets.create",
        "secretmanager.secrets.delete",
    );
    let prefix = "resource.name.startsWith(\"projects/123456789012/secrets/nucleus-credentials-\")";
    let project = "example-project";
    let agent = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com";
    let dna = "serviceAccount:dna@example-project.iam.gserviceaccount.com";
    let publisher = "roles/pubsub.publisher";
    let subscriber = "roles/pubsub.subscriber";
    let deployer = "run.executions.get run.executions.list run.jobs.get run.jobs.run \
                    run.jobs.update run.operations.get run.revisions.get run.revisions.list \
                    run.services.get run.services.update run.tasks.get run.tasks.list \
                    run.workerpools.get run.workerpools.update";
    let user = "roles/iam.serviceAccountUser";
    let expected = [
        ("nucleus-api", credentials, prefix),
        ("nucleus-worker", credentials, prefix),
        ("nucleus-command", credentials, prefix),
        ("nucleus-api", create, project),
        ("nucleus-api", delete, prefix),
        ("nucleus-command", "roles/pubsub.viewer", project),
        ("nucleus-api", publisher, "nucleus-sync-requests"),
        ("nucleus-api", publisher, "nucleus-dna-analysis"),
        ("nucleus-worker", publisher, "nucleus-sync-requests"),
        ("nucleus-worker", publisher, "nucleus-dna-analysis"),
        (agent, publisher, "nucleus-sync-dead-letter"),
        ("nucleus-worker", subscriber, "nucleus-sync-worker"),
        ("nucleus-worker", subscriber, "nucleus-sync-scheduler"),
        (
            "nucleus-worker",
            subscriber,
            "nucleus-sync-dead-letter-reader",
        ),
        (agent, subscriber, "nucleus-sync-worker"),
        (dna, subscriber, "nucleus-dna-engine"),
        ("nucleus-deploy", "roles/artifactregistry.writer", "images"),
        ("nucleus-deploy", deployer, project),
        ("nucleus-deploy", user, "nucleus-api"),
        ("nucleus-deploy", user, "nucleus-worker"),
        ("nucleus-deploy", user, "nucleus-migrate"),
        ("nucleus-deploy", user, "nucleus-command"),
    ];
    let expected = expected.map(|(who, role, on)| (who.to_owned(), role.to_owned(), on.to_owned()));
    let mut found = grants(plan);
    // The one that is no account of a project: the main branch of one repository.
    let github = |grant: &(String, String, String)| grant.1 == "roles/iam.workloadIdentityUser";
    let outside: Vec<_> = found
        .iter()
        .filter(|grant| github(grant))
        .cloned()
        .collect();
    found.retain(|grant| !github(grant));
    assert_eq!(found, expected.into());
    assert_eq!(outside.len(), 1);
    assert!(
        outside[0]
            .0
            .ends_with("/attribute.repository/example/nucleus"),
        "{outside:?}"
    );
    assert_eq!(outside[0].2, "nucleus-deploy");
    let provider = plan
        .all("google_iam_workload_identity_pool_provider")
        .next()
        .unwrap();
    assert_eq!(
        provider.text("attribute_condition"),
        "assertion.repository == \"example/nucleus\" && assertion.ref == \"refs/heads/main\""
    );
    assert_eq!(plan.all("google_service_account_key").count(), 0);
    for permission in credentials.split(' ').chain([create, delete]) {
        assert!(
            PERMISSIONS.contains(&format!("`{permission}`")),
            "{permission} is not in docs/secret-manager.md"
        );
    }
}

fn the_alerts_look_for_what_the_program_logs(plan: &Plan) {
    let log = concat!(
        include_str!("../../../src/sync/finish.rs"),
        include_str!("../../../src/sync/access.rs")
    );
    let metrics: Vec<&Made> = plan.all("google_logging_metric").collect();
    assert_eq!(metrics.len(), 2);
    for metric in metrics {
        let mut looked_for = Vec::new();
        for part in metric
            .text("filter")
            .split(" AND ")
            .filter(|part| part.starts_with("jsonPayload"))
        {
            let (_, texts) = part.split_once('=').unwrap();
            let quoted = texts.split('"').skip(1).step_by(2);
            looked_for.extend(quoted.map(|text| text.trim_start_matches('^')));
        }
        assert!(!looked_for.is_empty(), "{}", metric.address);
        for text in looked_for {
            assert!(log.contains(&format!("\"{text}")), "nothing logs {text:?}");
        }
    }
}

fn the_workflow_deploys_what_terraform_makes_and_holds_no_key(plan: &Plan) {
    for kind in ["jobs", "services", "worker-pools"] {
        let made = format!(
            "google_cloud_run_v2_{}",
            kind.trim_end_matches('s').replace('-', "_")
        );
        let names: BTreeSet<&str> = plan.all(&made).map(|made| made.text("name")).collect();
        let before = format!("run {kind} update ");
        let updated = WORKFLOW.split(&before).skip(1);
        let updated = updated.map(|rest| rest.split_whitespace().next().unwrap());
        assert_eq!(updated.collect::<BTreeSet<&str>>(), names, "{kind}");
    }
    assert!(!WORKFLOW.contains("secrets."), "no secret is needed");
    let order = [
        "jobs execute nucleus-migrate",
        "update nucleus-work",
        "update nucleus-serve",
    ];
    let places = order.map(|words| WORKFLOW.find(words).unwrap());
    assert!(places.is_sorted(), "the schema, the workers, the API");
    let images = WORKFLOW.matches("--image=").count();
    assert_eq!(
        WORKFLOW.matches("--image=\"$IMAGE@$DIGEST\"").count(),
        images
    );
}

fn the_guide_names_what_there_is(plan: &Plan) {
    for document in [GUIDE, MANUAL] {
        for rest in document.split("terraform output -raw ").skip(1) {
            let end = rest
                .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                .unwrap();
            assert!(
                plan.outputs.contains(&rest[..end]),
                "no output {}",
                &rest[..end]
            );
        }
        for rest in document.split("gcloud secrets versions add ").skip(1) {
            let name = rest.split_whitespace().next().unwrap();
            let mut secrets = plan.all("google_secret_manager_secret");
            assert!(
                secrets.any(|secret| secret.text("secret_id") == name),
                "no secret {name}"
            );
        }
        for rest in document.split("jobs execute ").skip(1) {
            let line = rest.lines().next().unwrap();
            let name = line.split_whitespace().next().unwrap();
            let mut jobs = plan.all("google_cloud_run_v2_job");
            assert!(jobs.any(|job| job.text("name") == name), "no job {name}");
            if let Some((_, command)) = line.split_once("--args=") {
                let end = command.find(|c: char| !c.is_ascii_lowercase() && c != '-' && c != ',');
                let command = &command[..end.unwrap_or(command.len())];
                let command: Vec<String> = command.split(',').map(str::to_owned).collect();
                assert_is_command(&command);
            }
        }
    }
    let variables = fs::read_to_string(Path::new(super::ROOT).join("infra/variables.tf")).unwrap();
    for line in GUIDE.lines().filter_map(|line| line.strip_prefix("echo '")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(
            variables.contains(&format!("variable \"{name}\"")),
            "no variable {name}"
        );
    }
}
