//! GitHub's calls. What the answers mean for a sync is not decided here.
//!
//! Reference: <https://docs.github.com/en/rest>.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::{
    super::{
        Access, Change, ConnectorError,
        client::{
            ClientError, FOREIGN_LINK, HeaderMap, LARGE_BYTES, MOVED_AGAIN, Request, Shape, Target,
        },
    },
    classify::{DELETED, NOT_ACCESSIBLE, REJECTED, SSO_REQUIRED, classify},
};
use crate::domain::sync::SkipReason;

/// The version of the API that this is written for; GitHub keeps one for two years after the next.
///
/// Source: <https://docs.github.com/en/rest/about-the-rest-api/api-versions>.
const VERSION: &str = "2022-11-28";
const JSON_HEADERS: [(&str, &str); 2] = [
    ("accept", "application/vnd.github+json"),
    ("x-github-api-version", VERSION),
];
/// Stars then come with the time at which they were given.
const STAR_HEADERS: [(&str, &str); 2] = [
    ("accept", "application/vnd.github.star+json"),
    ("x-github-api-version", VERSION),
];
/// What GitHub gives at most on one page.
const PAGE_SIZE: usize = 100;
/// For pages that are too large: the text of one issue may have 256 KB.
const SMALL_PAGE_SIZE: usize = 20;
/// The largest answer taken, in bytes.
const CAP: usize = LARGE_BYTES;
/// How often a page is asked for whose JSON cannot be read.
const PARSE_ATTEMPTS: usize = 3;

/// A list of GitHub's, page by page.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    /// What the call is called in metrics.
    pub(super) method: &'static str,
    pub(super) path: &'a [&'a str],
    /// Beyond the size of a page.
    pub(super) query: &'a [(&'a str, &'a str)],
}

/// A page of a list.
pub(super) struct Items {
    /// Each item's JSON.
    pub(super) items: Vec<Bytes>,
    /// Tells whether the page has changed since.
    pub(super) etag: Option<String>,
    /// Where the next page is.
    pub(super) next: Option<String>,
    /// Whether no other item would be on this page.
    pub(super) is_full: bool,
    /// Whether an organisation's items are left out, because the token has not signed on there.
    pub(super) is_partial: bool,
    /// The scopes of the token, where it has any.
    pub(super) scopes: Option<String>,
}

impl Items {
    /// Of a list that has nothing.
    pub(super) fn none() -> Self {
        Self {
            items: Vec::new(),
            etag: None,
            next: None,
            is_full: false,
            is_partial: false,
            scopes: None,
        }
    }
}

/// A list that concerns one repository or one issue. It may fail without the others.
pub(super) enum Part {
    Had(Items),
    /// It is not there, or not for these credentials.
    NotAccessible(String),
    /// What it belongs to was deleted.
    Gone,
    /// Larger than what is taken.
    TooLarge,
    /// It fails although the service answers.
    Failed(String),
}

/// The calls for one account.
#[derive(Clone, Copy)]
pub(super) struct Api<'a> {
    pub(super) access: &'a Access,
}

impl Api<'_> {
    /// Who connected; none where that is as it was when `etag` was given.
    pub(super) async fn user(
        &self,
        etag: Option<&str>,
    ) -> Result<Option<(Bytes, Option<String>)>, ClientError> {
        let request = request("user.get", &["user"], &[], Shape::Object);
        let client = &self.access.client;
        let reply = client.get_if_changed(self.access, request, etag).await?;
        Ok(reply.map(|reply| (reply.body, header(&reply.headers, "etag"))))
    }

    /// A gist with the contents of its files.
    pub(super) async fn gist(&self, id: &str) -> Result<Bytes, ClientError> {
        let path = ["gists", id];
        let request = request("gists.get", &path, &[], Shape::Object);
        let reply = self.access.client.get(self.access, request).await?;
        Ok(reply.body)
    }

    /// The page of a list at `link`, or its first; none where it is as it was when `etag` was given.
    pub(super) async fn list(
        &self,
        list: List<'_>,
        link: Option<&str>,
        etag: Option<&str>,
    ) -> Result<Option<Items>, ClientError> {
        match self.list_by(list, PAGE_SIZE, link, etag).await {
            Err(error @ ClientError::TooLarge(_)) => {
                let smaller = match link {
                    Some(link) => Some(in_small_pages(link).ok_or(error)?),
                    None => None,
                };
                let link = smaller.as_deref();
                self.list_by(list, SMALL_PAGE_SIZE, link, None).await
            }
            answer => answer,
        }
    }

    async fn list_by(
        &self,
        list: List<'_>,
        size: usize,
        link: Option<&str>,
        etag: Option<&str>,
    ) -> Result<Option<Items>, ClientError> {
        let per_page = size.to_string();
        let query = [list.query, &[("per_page", per_page.as_str())]].concat();
        let mut attempts = 1;
        loop {
            let mut request = request(list.method, list.path, &query, Shape::Array);
            if list.path == ["user", "starred"] {
                request.headers = &STAR_HEADERS;
            }
            if let Some(link) = link {
                request.target = Target::Link(link);
            }
            let client = &self.access.client;
            let Some(reply) = client.get_if_changed(self.access, request, etag).await? else {
                return Ok(None);
            };
            // A list that was cut may end like a whole one.
            let Some(items) = split(&reply.body) else {
                if attempts == PARSE_ATTEMPTS {
                    let reason = format!("{} answered no readable JSON", list.method);
                    return Err(ClientError::Unavailable(reason));
                }
                attempts += 1;
                continue;
            };
            let sso = header(&reply.headers, "x-github-sso");
            return Ok(Some(Items {
                is_full: items.len() >= size,
                items,
                etag: header(&reply.headers, "etag"),
                next: header(&reply.headers, "link").and_then(|links| next_of(&links)),
                is_partial: sso.is_some_and(|sso| sso.starts_with("partial-results")),
                scopes: header(&reply.headers, "x-oauth-scopes"),
            }));
        }
    }

    /// The page of a list that concerns one repository or one issue.
    pub(super) async fn part(
        &self,
        list: List<'_>,
        link: Option<&str>,
    ) -> Result<Part, ConnectorError> {
        let error = match self.list(list, link, None).await {
            Ok(Some(items)) => return Ok(Part::Had(items)),
            Ok(None) => return Ok(Part::Failed("nothing was answered".to_owned())),
            Err(error) => error,
        };
        let detail = error.to_string();
        match error {
            ClientError::TooLarge(_) => Ok(Part::TooLarge),
            // A repository without a commit.
            ClientError::Rejected { status: 409, .. } => Ok(Part::Had(Items::none())),
            ClientError::Rejected { code: DELETED, .. } => Ok(Part::Gone),
            // The last two are of a list whose redirects lead to no end, or of one that goes on elsewhere.
            ClientError::Rejected {
                code: REJECTED | MOVED_AGAIN | FOREIGN_LINK,
                ..
            } => Ok(Part::Failed(detail)),
            ClientError::Unavailable(_) => match self.user(None).await {
                Ok(_) => Ok(Part::Failed(detail)),
                Err(other) => Err(other.into()),
            },
            error if is_not_accessible(&error) || asks_for_sign_on(&error) => {
                Ok(Part::NotAccessible(detail))
            }
            error => Err(error.into()),
        }
    }
}

/// Whether these credentials may not see what was asked for, though they are accepted.
pub(super) fn is_not_accessible(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::NotFound
            | ClientError::Rejected {
                code: NOT_ACCESSIBLE | DELETED,
                ..
            }
    )
}

fn asks_for_sign_on(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Rejected {
            code: SSO_REQUIRED,
            ..
        }
    )
}

fn request<'a>(
    method: &'static str,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    shape: Shape,
) -> Request<'a> {
    Request {
        method,
        target: Target::Path { path, query },
        headers: &JSON_HEADERS,
        shape,
        units: 1,
        cap: CAP,
        classify,
    }
}

/// The items of a JSON array, without copying them.
fn split(body: &Bytes) -> Option<Vec<Bytes>> {
    let items: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    let slice = |item: &&RawValue| body.slice_ref(item.get().as_bytes());
    Some(items.iter().map(slice).collect())
}

/// The same link in small pages, from the same item on: pages are said by their number, if not by what
/// they come after. None where they are small already.
fn in_small_pages(link: &str) -> Option<String> {
    let (base, query) = link.split_once('?')?;
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let of = |name: &str| pairs.iter().find(|(key, _)| key == name);
    let (_, size) = of("per_page")?;
    if *size != PAGE_SIZE.to_string() {
        return None;
    }
    let page = match of("page") {
        Some((_, page)) => {
            Some((page.parse::<usize>().ok()?.checked_sub(1)?) * PAGE_SIZE / SMALL_PAGE_SIZE + 1)
        }
        None => None,
    };
    let mut smaller = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &pairs {
        match (name.as_str(), page) {
            ("per_page", _) => smaller.append_pair(name, &SMALL_PAGE_SIZE.to_string()),
            ("page", Some(page)) => smaller.append_pair(name, &page.to_string()),
            _ => smaller.append_pair(name, value),
        };
    }
    Some(format!("{base}?{}", smaller.finish()))
}

/// What of each item is needed to go on, with the item. Those of which that cannot be read are told once.
pub(super) fn read_all<T: DeserializeOwned>(
    items: Vec<Bytes>,
    method: &'static str,
) -> (Vec<(T, Bytes)>, Vec<Change>) {
    let mut heads = Vec::with_capacity(items.len());
    let mut unreadable = Vec::new();
    for item in items {
        match serde_json::from_slice(&item) {
            Ok(head) => heads.push((head, item)),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                tracing::warn!(
                    list = method,
                    line,
                    column,
                    "an item lacks what GitHub promises"
                );
                let id = format!("{method}:unreadable");
                unreadable = vec![Change::Unwanted(id, SkipReason::Malformed)];
            }
        }
    }
    (heads, unreadable)
}

/// What of an answer is needed to go on.
pub(super) fn read<T: DeserializeOwned>(
    item: &Bytes,
    method: &'static str,
) -> Result<T, ConnectorError> {
    serde_json::from_slice(item).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        ConnectorError::Unavailable(format!(
            "{method} answered something that lacks what GitHub promises (line {line}, column {column})"
        ))
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The link with the relation `next` (RFC 8288).
fn next_of(links: &str) -> Option<String> {
    links.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::testing::{Answer, Asked, TestServer},
        *,
    };

    const COMMENTS: List<'static> = List {
        method: "comments.list",
        path: &["comments"],
        query: &[],
    };

    #[tokio::test]
    async fn a_later_page_that_is_too_large_goes_on_in_small_ones() {
        let server = TestServer::new(|asked: &Asked| {
            let (size, page) = (asked.get("per_page"), asked.get("page"));
            if size == "100" {
                return Answer::status(200, &format!("[\"{}\"]", "a".repeat(CAP)));
            }
            Answer::json(serde_json::json!([format!("{size} {page}")]))
        })
        .await;
        let api = Api {
            access: &server.access,
        };
        for (page, expected) in [
            (None, "\"20 \""),
            (Some(2), "\"20 6\""),
            (Some(3), "\"20 11\""),
        ] {
            let base = &server.access.base_url;
            let link = page.map(|page| format!("{base}comments?per_page=100&page={page}"));
            let Part::Had(items) = api.part(COMMENTS, link.as_deref()).await.unwrap() else {
                panic!("page {page:?} was not had");
            };
            assert_eq!(items.items, [expected]);
        }
    }

    #[tokio::test]
    async fn a_list_whose_redirects_lead_nowhere_fails_alone() {
        for location in ["/comments", "https://elsewhere.example/comments"] {
            let redirect = move |_: &Asked| Answer::status(301, "").header("location", location);
            let server = TestServer::new(redirect).await;
            let api = Api {
                access: &server.access,
            };
            let part = api.part(COMMENTS, None).await.unwrap();
            assert!(matches!(part, Part::Failed(_)), "{location}");
        }
    }

    #[test]
    fn the_next_page_is_where_the_link_says() {
        let links = "<https://api.github.com/repositories/1/issues?page=1>; rel=\"prev\", \
                     <https://api.github.com/repositories/1/issues?page=3>; rel=\"next\", \
                     <https://api.github.com/repositories/1/issues?page=9>; rel=\"last\"";
        let next = "https://api.github.com/repositories/1/issues?page=3";
        assert_eq!(next_of(links).as_deref(), Some(next));
        assert_eq!(next_of("<https://a/?page=1>; rel=\"last\""), None);
        assert_eq!(next_of("nonsense"), None);
    }

    #[test]
    fn small_pages_go_on_where_the_large_ones_were() {
        let link = |query: &str| format!("https://api.github.com/issues?{query}");
        let smaller = |query: &str| in_small_pages(&link(query));
        assert_eq!(
            smaller("since=2026-01-01T00%3A00%3A00Z&per_page=100&page=3"),
            Some(link("since=2026-01-01T00%3A00%3A00Z&per_page=20&page=11"))
        );
        assert_eq!(
            smaller("after=Y3Vyc29y&per_page=100"),
            Some(link("after=Y3Vyc29y&per_page=20"))
        );
        for other in ["per_page=20&page=11", "page=3", "per_page=100&page=0"] {
            assert_eq!(smaller(other), None, "{other}");
        }
    }

    #[test]
    fn a_list_is_split_into_its_items_as_they_are() {
        let body = Bytes::from_static(br#"[{"a":1}, {"b":"]"},7]"#);
        let items = split(&body).unwrap();
        assert_eq!(items, [&br#"{"a":1}"#[..], br#"{"b":"]"}"#, b"7"]);
        assert!(split(&Bytes::from_static(b"[{\"a\":1}, {]")).is_none());
    }
}
