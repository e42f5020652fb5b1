//! What holds for every row, and what the readers make of the vendors' answers.

use serde_json::json;
use url::Url;

use super::*;

#[test]
fn every_service_has_a_row_of_its_own() {
    for name in ServiceName::ALL {
        let provider = of(name);
        assert_eq!(provider.name, name);
        let Endpoints {
            authorize,
            token,
            revoke,
            api,
        } = provider.endpoints;
        for url in [Some(authorize), Some(token), revoke, Some(api)]
            .into_iter()
            .flatten()
        {
            let url: Url = url.parse().unwrap();
            assert_eq!(url.scheme(), "https", "{name}");
            assert!(url.query().is_none(), "{name}");
        }
        assert!(provider.who.path.starts_with('/'), "{name}");
        assert!(!provider.oauth.tokens_at.is_empty(), "{name}");
        for kind in provider.by_hand.map_or(&[][..], |by_hand| by_hand.types) {
            // What is sent is one token.
            assert_eq!(kind.fields().len(), 1, "{name}");
        }
        // A refusal without a code of its own would never be found.
        for refusal in provider.oauth.refusals {
            assert!(!refusal.code.is_empty(), "{name}");
        }
    }
}

#[test]
fn accounts_are_read_as_the_vendors_write_them() {
    let answers = [
        (
            ServiceName::Gmail,
            json!({"emailAddress": "ada@example.com", "historyId": "9"}),
            ("ada@example.com", "ada@example.com"),
        ),
        (
            ServiceName::GoogleCalendar,
            json!({"kind": "calendar#calendarListEntry", "id": "ada@example.com", "primary": true}),
            ("ada@example.com", "ada@example.com"),
        ),
        (
            ServiceName::GoogleDrive,
            json!({"user": {"displayName": "Ada", "emailAddress": "ada@example.com"}}),
            ("ada@example.com", "ada@example.com"),
        ),
        (
            ServiceName::Github,
            json!({"id": 583_231, "login": "octocat"}),
            ("583231", "octocat"),
        ),
        (
            ServiceName::Notion,
            json!({"object": "user", "id": "b0", "type": "bot", "name": "nucleus",
                   "bot": {"owner": {"type": "user", "user": {"name": "Ada"}}, "workspace_name": "Engines"}}),
            ("b0", "Ada in Engines"),
        ),
        (
            ServiceName::Notion,
            json!({"id": "b1", "bot": {"owner": {"type": "workspace", "workspace": true}, "workspace_name": "Engines"}}),
            ("b1", "Engines"),
        ),
        (
            ServiceName::Notion,
            json!({"id": "b2", "bot": {}}),
            ("b2", "b2"),
        ),
        (
            ServiceName::Slack,
            json!({"ok": true, "team": "Engines", "user": "ada", "team_id": "T1", "user_id": "U1"}),
            ("T1/U1", "ada in Engines"),
        ),
        (
            ServiceName::Linkedin,
            json!({"sub": "782bbtaQ", "name": "Ada", "email": "ada@example.com"}),
            ("782bbtaQ", "ada@example.com"),
        ),
        (
            ServiceName::Twitter,
            json!({"data": {"id": "2244994945", "name": "Ada", "username": "ada"}}),
            ("2244994945", "@ada"),
        ),
        (
            ServiceName::Spotify,
            json!({"id": "wizzler", "display_name": null}),
            ("wizzler", "wizzler"),
        ),
    ];
    for (name, answer, (id, shown)) in answers {
        let account = (of(name).who.read)(&answer).unwrap();
        assert_eq!((account.id.as_str(), account.name.as_str()), (id, shown));
    }
    // What a table or a page could not hold is left out.
    let odd = json!({"id": "a\0b", "display_name": "x".repeat(1000)});
    let account = (of(ServiceName::Spotify).who.read)(&odd).unwrap();
    assert_eq!((account.id.as_str(), account.name.len()), ("ab", 255));
    for name in ServiceName::ALL {
        for answer in [json!({}), json!([]), json!({"id": null}), json!({"id": ""})] {
            assert_eq!((of(name).who.read)(&answer), None, "{name} {answer}");
        }
    }
}

#[test]
fn refusals_mean_what_each_service_means() {
    use RefusalKind::{Configuration, GrantExpired, GrantGone, Transient};
    let x = "Value passed for the token was invalid.";
    let cases: &[(ServiceName, &[&str], &str, RefusalKind)] = &[
        (
            ServiceName::Gmail,
            &["", "invalid_grant"],
            "Bad Request",
            GrantGone,
        ),
        (
            ServiceName::Gmail,
            &["invalid_rapt", "invalid_grant"],
            "",
            GrantExpired,
        ),
        (
            ServiceName::Gmail,
            &["", "invalid_client"],
            "",
            Configuration,
        ),
        (
            ServiceName::Github,
            &["", "bad_refresh_token"],
            "",
            GrantGone,
        ),
        (
            ServiceName::Github,
            &["", "incorrect_client_credentials"],
            "",
            Configuration,
        ),
        (ServiceName::Slack, &["", "invalid_grant"], "", GrantExpired),
        (ServiceName::Slack, &["", "token_revoked"], "", GrantGone),
        (
            ServiceName::Slack,
            &["", "bad_client_secret"],
            "",
            Configuration,
        ),
        (ServiceName::Slack, &["", "ratelimited"], "", Transient),
        (ServiceName::Twitter, &["", "invalid_request"], x, GrantGone),
        (
            ServiceName::Twitter,
            &["", "invalid_request"],
            "Missing valid authorization header",
            Configuration,
        ),
        (
            ServiceName::Spotify,
            &["", "invalid_grant"],
            "Refresh token revoked",
            GrantGone,
        ),
        (
            ServiceName::Linkedin,
            &["", "temporarily_unavailable"],
            "",
            Transient,
        ),
        (
            ServiceName::Notion,
            &["", "never heard of"],
            "",
            Configuration,
        ),
    ];
    for (name, codes, description, kind) in cases {
        let meaning = of(*name).oauth.meaning(codes, description);
        assert_eq!(meaning, *kind, "{name} {codes:?} {description}");
    }
}

#[test]
fn scopes_are_compared_however_they_are_written() {
    let github = &of(ServiceName::Github).oauth;
    let missing = |text: &str| github.missing(github.scopes, &OAuth::scopes_in(text));
    assert_eq!(missing("read:user,repo,gist"), [""; 0]);
    assert_eq!(missing("gist repo, user"), [""; 0]);
    assert_eq!(missing("repo"), ["read:user", "gist"]);
    assert_eq!(missing(""), ["read:user", "repo", "gist"]);
    // The larger scope does not hold what is not its own.
    assert_eq!(missing("user"), ["repo", "gist"]);
}
