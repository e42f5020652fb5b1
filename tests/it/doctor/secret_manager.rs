//! What the doctor says of Secret Manager, and that its look changes nothing there.

use super::{Found, world};
use crate::{
    backends::secret_manager_url,
    child::World,
    doubles::secret_manager::{Call, Fault, SecretManagerDouble},
};

/// A world with one connected account, whose credentials are in the double.
async fn lived_in() -> (World, SecretManagerDouble) {
    let double = SecretManagerDouble::start().await;
    let mut world = world().await;
    world.keep_in_secret_manager(&double.url);
    let server = world.listen("up").await;
    server.api.connect(&world).await;
    server.stop().await;
    (world, double)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_allowed_it_says_so_and_changes_nothing() {
    let (world, double) = lived_in().await;
    let before = format!("{:?}", double.secrets());
    let found = Found::in_world(&world).await;
    let allowed = [
        "secretmanager.versions.list",
        "versions.access",
        "versions.add",
        "versions.destroy",
    ];
    found.assert("secret_manager", "ok", &allowed);
    found.assert("credentials", "ok", &["those of 1 integrations"]);
    assert!(!found.names().contains("vault"));
    assert_eq!(format!("{:?}", double.secrets()), before);
    assert!(!world.data_dir().join("vault").exists());

    // And so it is with the one that others have made.
    let mut world = world;
    world.set("NUCLEUS_SECRETS__ENDPOINT", secret_manager_url());
    let found = Found::in_world(&world).await;
    found.assert("secret_manager", "ok", &allowed);
    found.assert("credentials", "fail", &["are missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_named_with_who_mends_it() {
    let (world, double) = lived_in().await;
    let denied = Fault::Refuse(403, "PERMISSION_DENIED");
    double.inject(Call::Add, denied.clone(), 1);
    double.inject(Call::Destroy, denied.clone(), 1);
    let found = Found::in_world(&world).await;
    let words = ["versions.add", "versions.destroy", "docs/secret-manager.md"];
    found.assert("secret_manager", "fail", &words);
    found.assert("credentials", "ok", &[]);

    double.inject(Call::Access, denied, 2);
    let found = Found::in_world(&world).await;
    found.assert("secret_manager", "fail", &["versions.access"]);
    found.assert("credentials", "fail", &["make Secret Manager answer"]);
    double.mend();

    double.inject(Call::Access, Fault::NotEnabled, 1);
    let found = Found::in_world(&world).await;
    let words = ["gcloud services enable secretmanager.googleapis.com"];
    found.assert("secret_manager", "fail", &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_there_and_credentials_that_are_not_are_told_apart() {
    let (mut world, double) = lived_in().await;
    double.inject(Call::Access, Fault::Page(500), 1);
    let found = Found::in_world(&world).await;
    found.assert(
        "secret_manager",
        "fail",
        &["status 500", "look at the network"],
    );
    found.assert("credentials", "fail", &["make Secret Manager answer"]);

    world.set("NUCLEUS_SECRETS__ENDPOINT", "http://127.0.0.1:9");
    let found = Found::in_world(&world).await;
    let words = ["Connection refused", "NUCLEUS_SECRETS__ENDPOINT"];
    found.assert("secret_manager", "fail", &words);

    world.unset("NUCLEUS_SECRETS__ENDPOINT");
    world.set("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json");
    let found = Found::in_world(&world).await;
    let words = ["/nowhere/key.json", "application-default login"];
    found.assert("secret_manager", "fail", &words);
    let failed = world.run(&["up"]).await;
    failed.assert_fails(1, &["/nowhere/key.json", "application-default login"]);
}
