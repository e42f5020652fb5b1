//! The token endpoint without a connection.

use super::*;

fn form(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
    owned.collect()
}

fn options() -> Options {
    Options {
        client_id: "id".to_owned(),
        client_secret: "se/cret".to_owned(),
        refresh_token: "good".to_owned(),
        ..Options::default()
    }
}

fn error(answer: &OAuthAnswer) -> (u16, &str) {
    (answer.code, answer.body["error"].as_str().unwrap_or(""))
}

#[test]
fn a_refresh_gives_a_token_that_opens_until_it_expires() {
    let (options, now) = (options(), DateTime::UNIX_EPOCH);
    let mut grants = Grants::new(&options);
    let refresh = form(&[("grant_type", "refresh_token"), ("refresh_token", "good")]);
    let basic = format!("Basic {}", STANDARD.encode("id:se%2Fcret"));
    let answer = grants.token(&options, Some(&basic), &refresh, now);
    assert_eq!(answer.code, 200);
    assert_eq!(answer.body["expires_in"], 3599);
    assert_eq!(answer.body["token_type"], "Bearer");
    assert!(answer.body.get("refresh_token").is_none());
    let token = answer.body["access_token"].as_str().unwrap();
    let own = Access {
        account: 0,
        gmail: true,
    };
    let last = now + TimeDelta::seconds(3598);
    assert_eq!(grants.opens(token, last), Some(own));
    assert_eq!(grants.opens(token, last + TimeDelta::seconds(1)), None);
    assert_eq!(grants.opens("other", now), None);
}

#[test]
fn a_rotating_endpoint_takes_each_refresh_token_once() {
    let options = Options {
        rotate_refresh_tokens: true,
        ..options()
    };
    let mut grants = Grants::new(&options);
    let mut refresh = form(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", "good"),
        ("client_id", "id"),
        ("client_secret", "se/cret"),
    ]);
    let now = DateTime::UNIX_EPOCH;
    let first = grants.token(&options, None, &refresh, now);
    let again = grants.token(&options, None, &refresh, now);
    assert_eq!(error(&again), (400, "invalid_grant"));
    let next = first.body["refresh_token"].as_str().unwrap();
    refresh.insert("refresh_token".to_owned(), next.to_owned());
    assert_eq!(grants.token(&options, None, &refresh, now).code, 200);
}

#[test]
fn refusals_have_googles_status_and_error() {
    let options = options();
    let mut grants = Grants::new(&options);
    for (pairs, expected) in [
        (&[][..], (400, "invalid_request")),
        (&[("client_id", "who")], (401, "invalid_client")),
        (
            &[("client_id", "id"), ("client_secret", "no")],
            (401, "invalid_client"),
        ),
        (
            &[
                ("client_id", "id"),
                ("client_secret", "se/cret"),
                ("grant_type", "password"),
            ],
            (400, "unsupported_grant_type"),
        ),
        (
            &[
                ("client_id", "id"),
                ("client_secret", "se/cret"),
                ("grant_type", "refresh_token"),
            ],
            (400, "invalid_request"),
        ),
        (
            &[
                ("client_id", "id"),
                ("client_secret", "se/cret"),
                ("grant_type", "refresh_token"),
                ("refresh_token", "bad"),
            ],
            (400, "invalid_grant"),
        ),
    ] {
        let answer = grants.token(&options, None, &form(pairs), DateTime::UNIX_EPOCH);
        assert_eq!(error(&answer), expected, "{pairs:?}");
    }
}

#[test]
fn revoking_either_token_takes_the_whole_grant() {
    let (options, now) = (options(), DateTime::UNIX_EPOCH);
    for by_access_token in [true, false] {
        let mut grants = Grants::new(&options);
        let access = grants.issue(&options, now);
        let token = if by_access_token {
            access.clone()
        } else {
            "good".to_owned()
        };
        assert_eq!(grants.revoke_token(Some(&token)).code, 200);
        assert_eq!(grants.opens(&access, now), None);
        assert_eq!(grants.refresh_token(), None);
        let again = grants.revoke_token(Some(&token));
        assert_eq!(error(&again), (400, "invalid_token"));
    }
}

const REDIRECT: &str = "http://127.0.0.1:1/back";
/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const S256: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn consented(account: usize, refresh: bool) -> Consented {
    Consented {
        account,
        scopes: vec![GMAIL.to_owned()],
        redirect_uri: REDIRECT.to_owned(),
        challenge: Some(Challenge::S256(S256.to_owned())),
        refresh,
    }
}

fn exchange(code: &str) -> HashMap<String, String> {
    form(&[
        ("grant_type", "authorization_code"),
        ("client_id", "id"),
        ("client_secret", "se/cret"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ])
}

#[test]
fn a_code_is_exchanged_once_and_a_second_try_takes_nothing_away() {
    let (options, now) = (options(), DateTime::UNIX_EPOCH);
    let mut grants = Grants::new(&options);
    let code = grants.code(consented(1, true), false, now);
    let last = now + TimeDelta::seconds(599);
    let answer = grants.token(&options, None, &exchange(&code), last);
    assert_eq!((answer.code, &answer.body["scope"]), (200, &json!(GMAIL)));
    let access = answer.body["access_token"].as_str().unwrap();
    let again = grants.token(&options, None, &exchange(&code), last);
    assert_eq!(error(&again), (400, "invalid_grant"));
    let opened = Access {
        account: 1,
        gmail: true,
    };
    assert_eq!(grants.opens(access, last), Some(opened));
    let refresh_token = answer.body["refresh_token"].as_str().unwrap();
    assert_eq!(grants.refresh_token(), Some("good"));
    let mut refresh = exchange("");
    refresh.insert("grant_type".to_owned(), "refresh_token".to_owned());
    refresh.insert("refresh_token".to_owned(), refresh_token.to_owned());
    let refreshed = grants.token(&options, None, &refresh, last);
    assert_eq!(refreshed.body["scope"], GMAIL);
    assert!(refreshed.body.get("refresh_token").is_none());
    let token = refreshed.body["access_token"].as_str().unwrap();
    assert_eq!(grants.opens(token, last), Some(opened));
}

#[test]
fn a_code_is_bound_to_its_time_its_redirect_uri_and_its_verifier() {
    let (options, now) = (options(), DateTime::UNIX_EPOCH);
    for (name, value, expected) in [
        ("code", None, "invalid_request"),
        ("code", Some("4/other"), "invalid_grant"),
        ("code", Some("other"), "invalid_grant"),
        ("redirect_uri", None, "invalid_request"),
        (
            "redirect_uri",
            Some("http://127.0.0.1:1/back/"),
            "redirect_uri_mismatch",
        ),
        ("code_verifier", None, "invalid_grant"),
        ("code_verifier", Some(S256), "invalid_grant"),
    ] {
        let mut grants = Grants::new(&options);
        let code = grants.code(consented(0, true), false, now);
        let mut form = exchange(&code);
        match value {
            Some(value) => form.insert(name.to_owned(), value.to_owned()),
            None => form.remove(name),
        };
        let answer = grants.token(&options, None, &form, now);
        assert_eq!(error(&answer), (400, expected), "{name} {value:?}");
    }
    let mut grants = Grants::new(&options);
    let code = grants.code(consented(0, true), false, now);
    let late = now + TimeDelta::seconds(600);
    let answer = grants.token(&options, None, &exchange(&code), late);
    assert_eq!(error(&answer), (400, "invalid_grant"));
    let plain = Consented {
        challenge: None,
        ..consented(0, false)
    };
    let code = grants.code(plain, false, now);
    let answer = grants.token(&options, None, &exchange(&code), now);
    assert_eq!(error(&answer), (400, "invalid_grant"));
}

#[test]
fn a_failed_try_spends_the_code() {
    let (options, now) = (options(), DateTime::UNIX_EPOCH);
    let mut grants = Grants::new(&options);
    let code = grants.code(consented(0, true), false, now);
    let mut wrong = exchange(&code);
    wrong.insert("code_verifier".to_owned(), "wrong".to_owned());
    let answer = grants.token(&options, None, &wrong, now);
    assert_eq!(error(&answer), (400, "invalid_grant"));
    let answer = grants.token(&options, None, &exchange(&code), now);
    assert_eq!(error(&answer), (400, "invalid_grant"));
}

#[test]
fn revoking_one_account_leaves_the_others() {
    let (options, now) = (options(), DateTime::UNIX_EPOCH);
    let mut grants = Grants::new(&options);
    let own = grants.issue(&options, now);
    let code = grants.code(consented(1, true), false, now);
    let other = grants.token(&options, None, &exchange(&code), now).body;
    let unused = grants.code(consented(1, true), false, now);
    let token = other["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(grants.revoke_token(Some(&token)).code, 200);
    let access = other["access_token"].as_str().unwrap();
    assert_eq!(grants.opens(access, now), None);
    assert!(!grants.covers(1, &[GMAIL.to_owned()]));
    let answer = grants.token(&options, None, &exchange(&unused), now);
    assert_eq!(error(&answer), (400, "invalid_grant"));
    assert!(grants.opens(&own, now).is_some());
    assert_eq!(grants.refresh_token(), Some("good"));
}
