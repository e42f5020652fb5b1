//! Everything at once: faults at random, changes between any two answers, tokens that end, kills. Then it
//! is calm, and the records must be the account's, by themselves.
//!
//! `NUCLEUS_SEED` replays one seed.

use std::collections::HashMap;

use chrono::TimeDelta;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

use super::assert_stored;
use crate::{
    connector_contract::{connect_github, with_github},
    doubles::github::{Account, Chaos},
    kills::seed,
};

/// Syncs of one life before it is calm.
const ROUNDS: usize = 8;

/// Lives of accounts, if the tester does not say.
const LIVES: u64 = 2;

/// How many lives there are, from `NUCLEUS_LIVES`.
#[expect(
    clippy::disallowed_methods,
    reason = "the tester's own variable, not the program's"
)]
fn lives() -> u64 {
    let given = std::env::var("NUCLEUS_LIVES").ok();
    given.map_or(LIVES, |text| text.parse().unwrap())
}

/// One change of the account, drawn from `seed`.
fn change(account: &mut Account, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let ledger: Vec<String> = account.ledger().into_keys().collect();
    let mut of = |prefix: &str| {
        let ids: Vec<&str> = ledger
            .iter()
            .filter_map(|id| id.strip_prefix(prefix))
            .collect();
        ids.choose(&mut random).map(|id| (*id).to_owned())
    };
    let (star, gist) = (of("star:"), of("gist:"));
    let issues = ledger.iter().filter(|id| id.starts_with("issue:")).count() as u64;
    let number = random.random_range(1..=issues.max(1));
    match random.random_range(0..14) {
        0 => drop(account.add_issue("one", false, 1).to_string()),
        1 => drop(account.add_issue("two", true, 0).to_string()),
        2 | 3 if issues > 0 => account.edit_issue(number),
        4 | 5 if issues > 0 => account.answer(number),
        6 => account.push("one", random.random_range(1..4)),
        7 => account.push("two", 1),
        8 => account.like(&format!("a/{seed}")),
        9 => account.unstar(star.map_or(0, |id| id.parse().unwrap())),
        10 => drop(account.add_gist()),
        11 => account.delete_gist(&gist.unwrap_or_default()),
        12 => account.draw_attention("one"),
        _ => account.say(&format!("Writes {seed}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_records_become_the_account() {
    let first = seed();
    let mut ends: HashMap<String, usize> = HashMap::new();
    let (mut kills, mut deleted) = (0, 0);
    for life in (0..lives()).map(|life| first.wrapping_add(life)) {
        let mut random = StdRng::seed_from_u64(life);
        let (mut app, github) = with_github(|account| {
            account.page_size = random.random_range(3..9);
            account.add_repository("one", 12);
            account.add_repository("two", 3);
            for number in 1..=20 {
                account.add_issue("one", number % 4 == 0, number % 3);
                account.like(&format!("a/{number}"));
            }
            account.add_gist();
            account.add_gist();
        })
        .await;
        let id = connect_github(&app).await;
        for round in 0..ROUNDS {
            github.chaos(Some(Chaos {
                random: StdRng::seed_from_u64(random.random()),
                faults_per_mille: *[0, 30, 150].choose(&mut random).unwrap(),
                changes_per_mille: *[20, 100, 400].choose(&mut random).unwrap(),
                change,
            }));
            if random.random_bool(0.2) {
                github.expire_access_tokens();
            }
            let run = app.request_sync(&id).await;
            // The first sync of an account has some fifty answers: there the kill comes for certain.
            let is_first = round == 0;
            let longest_life = if is_first { 30 } else { 60 };
            let until = github.answered() + random.random_range(1..longest_life);
            let kills_now = is_first || random.random_bool(0.6);
            let killed = tokio::select! {
                () = app.drain() => false,
                () = github.wait_for(until), if kills_now => true,
            };
            if killed {
                kills += 1;
                app.restart().await;
                app.drain().await;
            }
            let run: Value = app.get(&format!("/runs/{run}")).await;
            crate::harness::assert_adds_up(&run);
            let end = run["status"].as_str().unwrap().to_owned();
            if end == "failed" {
                assert_eq!(run["error"]["code"], "unavailable", "{run}");
            }
            *ends.entry(end).or_default() += 1;
            deleted += run["counts"]["deleted"].as_i64().unwrap();
            app.clock
                .advance(TimeDelta::minutes(random.random_range(0..90)));
        }
        github.chaos(None);
        github.with(|account| {
            let ledger = account.ledger();
            let star = ledger.keys().find_map(|id| id.strip_prefix("star:"));
            account.unstar(star.unwrap().parse().unwrap());
        });
        app.sync_until_success(&id, 6).await;
        // What is gone is believed the second time.
        for _ in 0..2 {
            let run = app.sync(&id).await;
            assert_eq!(run["status"], "success", "seed {life}");
            deleted += run["counts"]["deleted"].as_i64().unwrap();
        }
        assert_stored(&app, &github, &id).await;
        assert_eq!(app.sync(&id).await["counts"]["listed"], 0, "seed {life}");
    }
    assert!(
        kills > 0 && deleted > 0 && ends["success"] > 5,
        "{kills} kills, {deleted} deleted, {ends:?}"
    );
}
