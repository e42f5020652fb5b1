//! Gets messages, several at a time.

use futures_util::stream::BoxStream;

use super::{
    super::{ConnectorError, Fetched, RawItem, client::ClientError, fetching},
    api::Api,
};
use crate::domain::sync::SkipReason;

/// See [`super::super::Connector::fetch`].
pub(super) fn fetch(
    api: Api<'_>,
    ids: Vec<String>,
    concurrency: usize,
) -> BoxStream<'_, Result<(String, Fetched), ConnectorError>> {
    fetching::each(api.access, ids, concurrency, move |id| get(api, id))
}

/// One message; an error is either of the kind that may be an outage, or concerns all.
async fn get(api: Api<'_>, id: String) -> (String, Result<Fetched, ClientError>) {
    let fetched = match api.message(&id).await {
        Ok(reply) => Ok(Fetched::Raw(RawItem {
            id: id.clone(),
            body: reply.body,
            large: reply.large,
        })),
        Err(ClientError::NotFound) => Ok(Fetched::Missing),
        Err(ClientError::TooLarge(_)) => Ok(Fetched::Skipped(SkipReason::TooLarge)),
        Err(ClientError::Rejected {
            status: 400 | 410 | 422,
            code: "rejected",
            detail,
        }) => Ok(Fetched::Failed(detail)),
        Err(error) => Err(error),
    };
    (id, fetched)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, VecDeque},
        sync::{Arc, Mutex},
    };

    use chrono::TimeDelta;
    use futures_util::TryStreamExt;
    use serde_json::json;

    use super::*;
    use crate::{
        connectors::{
            Connector, Gmail, Governor, Spending,
            gmail::api::MESSAGE_BYTES,
            testing::{Answer, Asked, TestClock, TestServer},
        },
        domain::{Clock, QuotaTable},
    };

    const GMAIL: Gmail = Gmail {
        quota: QuotaTable::Y2026,
        fetch_concurrency: 4,
    };

    /// What became of each id, and the error that ended the stream.
    async fn fetch(
        gmail: &Gmail,
        stage: &TestServer,
        wanted: &[&str],
    ) -> (BTreeMap<String, String>, Option<ConnectorError>) {
        let wanted = wanted.iter().map(|&id| id.to_owned()).collect();
        let mut answers = BTreeMap::new();
        let mut stream = gmail.fetch(&stage.access, wanted);
        loop {
            let (id, fetched) = match stream.try_next().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return (answers, None),
                Err(error) => return (answers, Some(error)),
            };
            let text = match fetched {
                Fetched::Raw(item) => {
                    assert_eq!(item.id, id);
                    String::from_utf8(item.body.to_vec()).unwrap()
                }
                Fetched::Missing => "missing".into(),
                Fetched::Skipped(reason) => reason.as_str().into(),
                Fetched::Withheld(reason) | Fetched::Failed(reason) => format!("failed: {reason}"),
            };
            assert!(answers.insert(id.clone(), text).is_none(), "{id} twice");
        }
    }

    /// Messages by the beginning of their id: m(issing), l(arge), b(roken), x (a bad request), others are there.
    async fn mailbox() -> TestServer {
        TestServer::new(|asked: &Asked| {
            let id = asked.path.rsplit('/').next().unwrap();
            match id.as_bytes()[0] {
                b'm' => Answer::google(404, "notFound"),
                b'l' => Answer::status(200, &" ".repeat(MESSAGE_BYTES * 4 / 3 + 300_000)),
                b'b' => Answer::google(500, "backendError"),
                b'x' => Answer::google(400, "badRequest"),
                b's' => Answer::google(403, "insufficientPermissions"),
                _ => Answer::json(json!({"id": id, "raw": ""})),
            }
        })
        .await
    }

    #[tokio::test]
    async fn each_message_is_answered_once_with_what_became_of_it() {
        let stage = mailbox().await;
        let wanted = ["a1", "m1", "l1", "b1", "x1", "a2", "a1"];
        let (answers, error) = fetch(&GMAIL, &stage, &wanted).await;
        assert_eq!(error, None);
        assert_eq!(answers["a1"], r#"{"id":"a1","raw":""}"#);
        assert_eq!(answers["a2"], r#"{"id":"a2","raw":""}"#);
        assert_eq!(answers["m1"], "missing");
        assert_eq!(answers["l1"], SkipReason::TooLarge.as_str());
        assert_eq!(answers["b1"], "failed: the service answered 500");
        assert!(answers["x1"].starts_with("failed: gmail answered 400"));
        assert_eq!(answers.len(), 6);
        let asked = stage.asked();
        assert_eq!(
            asked.len(),
            5 + 5,
            "one each, and five attempts for the broken one"
        );
        assert_eq!(asked[0].get("format"), "raw");
    }

    #[tokio::test]
    async fn an_outage_ends_the_stream_and_leaves_no_failed_messages() {
        let stage = mailbox().await;
        let wanted = ["b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9"];
        let (answers, error) = fetch(&GMAIL, &stage, &wanted).await;
        assert_eq!(answers.len(), 0);
        assert!(
            matches!(error, Some(ConnectorError::Unavailable(_))),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_few_broken_messages_fail_alone() {
        let stage = mailbox().await;
        let (answers, error) = fetch(&GMAIL, &stage, &["b1", "b2", "b3", "b4"]).await;
        assert_eq!((answers.len(), error), (4, None));
    }

    #[tokio::test]
    async fn failures_with_successes_between_them_are_no_outage() {
        let stage = mailbox().await;
        let one_by_one = Gmail {
            fetch_concurrency: 1,
            ..GMAIL
        };
        let wanted = [
            "b1", "b2", "b3", "b4", "a1", "b5", "b6", "m1", "b7", "b8", "b9",
        ];
        let (answers, error) = fetch(&one_by_one, &stage, &wanted).await;
        assert_eq!((answers.len(), error), (11, None));
    }

    #[tokio::test]
    async fn what_concerns_the_account_ends_the_stream() {
        let stage = mailbox().await;
        let (_, error) = fetch(&GMAIL, &stage, &["s1", "a1"]).await;
        let code = match error {
            Some(ConnectorError::Rejected { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code, "insufficient_permissions");
    }

    /// Fetches 700 messages under the quota of 2026 from a service that grants `limit` units in any 60
    /// seconds, and tells when it refused, in seconds since the start, and how long all took.
    async fn fetch_700(limit: u32) -> (Vec<i64>, i64) {
        let clock = TestClock::new();
        let begin = clock.now();
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let granted = Mutex::new(VecDeque::new());
        let (time, refused) = (clock.clone(), refusals.clone());
        let mut stage = TestServer::with_clock(clock.clone(), move |asked: &Asked| {
            let now = time.now();
            let mut granted = granted.lock().unwrap();
            while granted
                .front()
                .is_some_and(|&at| now - at >= TimeDelta::seconds(60))
            {
                granted.pop_front();
            }
            let mut refused = refused.lock().unwrap();
            if (granted.len() as u32 + 1) * 20 > limit {
                refused.push((now - begin).num_seconds());
                return match refused.len() % 2 {
                    0 => Answer::google(403, "userRateLimitExceeded"),
                    _ => Answer::google(429, "rateLimitExceeded"),
                };
            }
            granted.push_back(now);
            let id = asked.path.rsplit('/').next().unwrap();
            Answer::json(json!({"id": id, "raw": ""}))
        })
        .await;
        let spent = Spending::default();
        stage.access.governor = Arc::new(Governor::new(Some(6000), spent, clock.clone()));
        let wanted: Vec<String> = (0..700).map(|number| format!("a{number}")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let gmail = Gmail {
            fetch_concurrency: 10,
            ..GMAIL
        };
        let (answers, error) = fetch(&gmail, &stage, &wanted).await;
        assert_eq!((answers.len(), error), (700, None));
        let refusals = refusals.lock().unwrap().clone();
        (refusals, (clock.now() - begin).num_seconds())
    }

    #[tokio::test]
    async fn under_the_quota_it_waits_and_is_never_refused() {
        let (refusals, seconds) = fetch_700(6000).await;
        assert_eq!(refusals, [0; 0]);
        assert!((120..=190).contains(&seconds), "{seconds}");
    }

    #[tokio::test]
    async fn under_a_lower_quota_it_is_refused_in_one_burst_only() {
        let (refusals, seconds) = fetch_700(4000).await;
        assert!((1..=10).contains(&refusals.len()), "{refusals:?}");
        assert!(refusals.last() < Some(&3), "{refusals:?}");
        assert!((180..=310).contains(&seconds), "{seconds}");
    }
}
