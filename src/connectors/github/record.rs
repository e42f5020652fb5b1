//! From GitHub's JSON to a record. Pure.
//!
//! What changes without anybody having written anything, such as the number of stars, is left out: it
//! would make a record change at every look.

use chrono::DateTime;
use email::Warning;
use serde_json::{Map, Value, json};

use super::{
    super::{Malformed, Normalized, RawItem},
    markdown,
};
use crate::domain::{IntegrationId, record::Record, time};

/// Longest title, name or path that is kept, in bytes.
const LINE_BYTES: usize = 1024;
/// Most names in a list that are kept.
const MAX_NAMES: usize = 100;
/// Most files of a gist that are kept; GitHub itself shows 300.
const MAX_FILES: usize = 300;

/// What an item turns out to be, before its text is cleaned.
struct Draft {
    data_type: &'static str,
    text: String,
    /// Bytes of the text as it was written that a reader does not see, and which are left out of it.
    hidden_bytes: usize,
    meta_data: Value,
    labels: Vec<String>,
}

/// See [`super::super::Connector::normalize`].
pub(super) fn normalize(
    item: &RawItem,
    integration: IntegrationId,
) -> Result<Normalized, Malformed> {
    let value: Value = serde_json::from_slice(&item.body)
        .map_err(|error| Malformed(format!("JSON: column {}", error.column())))?;
    if !value.is_object() {
        return Err(Malformed("it is no JSON object".to_owned()));
    }
    let kind = item.id.split(':').next().unwrap_or_default();
    let draft = match kind {
        "profile" => profile(&value),
        "repository" => repository(&value),
        "star" => star(&value),
        "gist" => gist(&value),
        "issue" => issue(&value),
        "comment" => comment(&value, "github_comment"),
        "review_comment" => comment(&value, "github_review_comment"),
        "review" => review(&value),
        "commit" => commit(&value),
        _ => return Err(Malformed(format!("{kind:?} is no kind of item"))),
    };
    let Draft {
        data_type,
        text,
        hidden_bytes,
        mut meta_data,
        labels,
    } = draft;
    let (content, found) = email::clean(&text);
    let mut warnings: Vec<Value> = found
        .iter()
        .map(|warning: &Warning| json!(warning))
        .collect();
    if hidden_bytes > 0 {
        let detail =
            format!("{hidden_bytes} bytes of text that a reader would not see were left out");
        warnings.push(json!({"code": "hidden_text", "detail": detail}));
    }
    meta_data["warnings"] = json!(warnings);
    let id = item.id.clone();
    let record = Record::new(id, data_type, content, meta_data, labels, integration);
    Ok(Normalized::Record(Box::new(record)))
}

fn profile(value: &Value) -> Draft {
    let facts = ["name", "bio", "company", "location", "blog", "email"];
    let said: Vec<String> = facts.iter().filter_map(|key| line(&value[*key])).collect();
    Draft {
        data_type: "github_profile",
        text: said.join("\n"),
        hidden_bytes: 0,
        meta_data: json!({
            "login": line(&value["login"]),
            "name": line(&value["name"]),
            "email": line(&value["email"]),
            "company": line(&value["company"]),
            "location": line(&value["location"]),
            "blog": line(&value["blog"]),
            "url": line(&value["html_url"]),
            "created_at": when(&value["created_at"]),
        }),
        labels: Vec::new(),
    }
}

fn repository(value: &Value) -> Draft {
    let mut draft = described(value);
    draft.data_type = "github_repository";
    draft
}

fn star(value: &Value) -> Draft {
    let starred = match value["repo"].is_object() {
        true => &value["repo"],
        false => value,
    };
    let mut draft = described(starred);
    draft.data_type = "github_star";
    draft.meta_data["starred_at"] = when(&value["starred_at"]);
    draft
}

/// A repository, in general.
fn described(value: &Value) -> Draft {
    let topics = names(&value["topics"]);
    let mut text = line(&value["full_name"]).unwrap_or_default();
    if let Some(description) = value["description"].as_str() {
        text = format!("{text}\n{description}");
    }
    if !topics.is_empty() {
        text = format!("{text}\n{}", topics.join(", "));
    }
    Draft {
        data_type: "",
        text,
        hidden_bytes: 0,
        meta_data: json!({
            "full_name": line(&value["full_name"]),
            "owner": person(&value["owner"]),
            "private": value["private"].as_bool(),
            "fork": value["fork"].as_bool(),
            "archived": value["archived"].as_bool(),
            "language": line(&value["language"]),
            "license": line(&value["license"]["spdx_id"]),
            "default_branch": line(&value["default_branch"]),
            "homepage": line(&value["homepage"]),
            "topics": topics,
            "url": line(&value["html_url"]),
            "created_at": when(&value["created_at"]),
        }),
        labels: Vec::new(),
    }
}

fn gist(value: &Value) -> Draft {
    let mut text = value["description"].as_str().unwrap_or_default().to_owned();
    let mut hidden_bytes = 0;
    let mut files = Vec::new();
    let none = Map::new();
    for file in value["files"]
        .as_object()
        .unwrap_or(&none)
        .values()
        .take(MAX_FILES)
    {
        let name = line(&file["filename"]).unwrap_or_default();
        if let Some(content) = file["content"].as_str() {
            let (content, hidden) = match is_markdown(&name) {
                true => markdown::visible(content),
                false => (content.to_owned(), 0),
            };
            text = format!("{text}\n\n{name}\n{content}");
            hidden_bytes += hidden;
        }
        files.push(json!({
            "filename": name,
            "language": line(&file["language"]),
            "size_bytes": file["size"].as_u64(),
            "is_truncated": file["truncated"].as_bool().unwrap_or(false),
        }));
    }
    Draft {
        data_type: "github_gist",
        text,
        hidden_bytes,
        meta_data: json!({
            "owner": person(&value["owner"]),
            "public": value["public"].as_bool(),
            "files": files,
            "url": line(&value["html_url"]),
            "created_at": when(&value["created_at"]),
            "updated_at": when(&value["updated_at"]),
        }),
        labels: Vec::new(),
    }
}

fn issue(value: &Value) -> Draft {
    let title = line(&value["title"]).unwrap_or_default();
    let (body, hidden_bytes) = markdown::visible(value["body"].as_str().unwrap_or_default());
    let pull_request = &value["pull_request"];
    let data_type = match pull_request.is_object() {
        true => "github_pull_request",
        false => "github_issue",
    };
    let assignees = value["assignees"].as_array();
    let assignees = assignees.into_iter().flatten().take(MAX_NAMES).map(person);
    Draft {
        data_type,
        text: format!("{title}\n\n{body}"),
        hidden_bytes,
        meta_data: json!({
            "title": title,
            "number": value["number"].as_u64(),
            "repository": repository_of(&value["repository_url"]),
            "author": person(&value["user"]),
            "assignees": assignees.collect::<Vec<Value>>(),
            "state": line(&value["state"]),
            "state_reason": line(&value["state_reason"]),
            "draft": value["draft"].as_bool(),
            "milestone": line(&value["milestone"]["title"]),
            "comments": value["comments"].as_u64(),
            "url": line(&value["html_url"]),
            "created_at": when(&value["created_at"]),
            "updated_at": when(&value["updated_at"]),
            "closed_at": when(&value["closed_at"]),
            "merged_at": when(&pull_request["merged_at"]),
        }),
        labels: label_names(&value["labels"]),
    }
}

fn comment(value: &Value, data_type: &'static str) -> Draft {
    // A comment on code names its pull request.
    let of = match value["issue_url"].is_string() {
        true => &value["issue_url"],
        false => &value["pull_request_url"],
    };
    let number = of.as_str().and_then(|url| url.rsplit('/').next());
    let number: Option<u64> = number.and_then(|number| number.parse().ok());
    let (text, hidden_bytes) = markdown::visible(value["body"].as_str().unwrap_or_default());
    Draft {
        data_type,
        text,
        hidden_bytes,
        meta_data: json!({
            "repository": repository_of(of),
            "number": number,
            "author": person(&value["user"]),
            "path": line(&value["path"]),
            "line": value["line"].as_u64(),
            "in_reply_to_id": value["in_reply_to_id"].as_u64(),
            "url": line(&value["html_url"]),
            "created_at": when(&value["created_at"]),
            "updated_at": when(&value["updated_at"]),
        }),
        labels: Vec::new(),
    }
}

/// What somebody says of a pull request as a whole, with a verdict.
fn review(value: &Value) -> Draft {
    let mut draft = comment(value, "github_review");
    draft.meta_data["state"] = json!(line(&value["state"]));
    draft.meta_data["submitted_at"] = when(&value["submitted_at"]);
    draft
}

fn commit(value: &Value) -> Draft {
    let commit = &value["commit"];
    let parents = value["parents"].as_array();
    let parents = parents.into_iter().flatten().take(MAX_NAMES);
    Draft {
        data_type: "github_commit",
        text: commit["message"].as_str().unwrap_or_default().to_owned(),
        hidden_bytes: 0,
        meta_data: json!({
            "sha": line(&value["sha"]),
            "repository": repository_of(&value["url"]),
            "author": {
                "name": line(&commit["author"]["name"]),
                "email": line(&commit["author"]["email"]),
                "login": line(&value["author"]["login"]),
            },
            "authored_at": when(&commit["author"]["date"]),
            "committed_at": when(&commit["committer"]["date"]),
            "parents": parents.filter_map(|parent| line(&parent["sha"])).collect::<Vec<_>>(),
            "url": line(&value["html_url"]),
        }),
        labels: Vec::new(),
    }
}

/// Whether GitHub shows a file as Markdown.
fn is_markdown(name: &str) -> bool {
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    ["md", "markdown", "mdown", "mkdn"]
        .iter()
        .any(|markdown| end.eq_ignore_ascii_case(markdown))
}

/// A text on one line, cleaned and bounded.
fn line(value: &Value) -> Option<String> {
    let (clean, _) = email::clean(value.as_str()?);
    let words: Vec<&str> = clean.split_whitespace().collect();
    let mut joined = words.join(" ");
    joined.truncate(joined.floor_char_boundary(LINE_BYTES));
    (!joined.is_empty()).then_some(joined)
}

fn names(value: &Value) -> Vec<String> {
    let names = value.as_array().into_iter().flatten();
    names.filter_map(line).take(MAX_NAMES).collect()
}

/// A label is an object, or in old answers its name.
fn label_names(value: &Value) -> Vec<String> {
    let labels = value.as_array().into_iter().flatten();
    let name = |label: &Value| line(&label["name"]).or_else(|| line(label));
    labels.filter_map(name).take(MAX_NAMES).collect()
}

/// Somebody with an account; null where the account is gone.
fn person(value: &Value) -> Value {
    match line(&value["login"]) {
        Some(login) => json!({"login": login, "id": value["id"].as_u64()}),
        None => Value::Null,
    }
}

/// Owner and name in a URL of the API: what follows `repos`.
fn repository_of(url: &Value) -> Option<String> {
    let (_, rest) = url.as_str()?.split_once("/repos/")?;
    let mut names = rest.split('/');
    line(&json!(format!("{}/{}", names.next()?, names.next()?)))
}

fn when(value: &Value) -> Value {
    let time = value
        .as_str()
        .and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    time.map_or(Value::Null, |time| json!(time::rfc3339(time.to_utc())))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(id: &str, value: Value) -> Record {
        let item = RawItem {
            id: id.to_owned(),
            body: Bytes::from(value.to_string()),
            large: None,
        };
        match normalize(&item, IntegrationId::new()).unwrap() {
            Normalized::Record(record) => *record,
            Normalized::Skipped(reason) => panic!("{reason:?}"),
        }
    }

    fn an_issue() -> Value {
        json!({"id": 1, "number": 5, "title": "It\r\nbreaks", "body": "Why?",
            "repository_url": "https://api.github.com/repos/o/r", "user": {"login": "ada", "id": 7},
            "labels": [{"name": "bug"}, "old"], "state": "open", "comments": 2, "assignees": [],
            "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"})
    }

    #[test]
    fn an_issue_is_its_title_and_its_text() {
        let made = record("issue:1", an_issue());
        assert_eq!(made.data_type, "github_issue");
        assert_eq!(made.data_content, "It breaks\n\nWhy?");
        assert_eq!(made.labels, ["bug", "old"]);
        assert_eq!(made.meta_data["repository"], "o/r");
        assert_eq!(made.meta_data["author"], json!({"login": "ada", "id": 7}));
        assert_eq!(made.meta_data["created_at"], "2026-01-02T03:04:05.000000Z");
        assert_eq!(made.meta_data["trust"], "untrusted_external");
        let mut pull = an_issue();
        pull["pull_request"] = json!({"merged_at": "2026-01-03T00:00:00Z"});
        let made = record("issue:1", pull);
        assert_eq!(made.data_type, "github_pull_request");
        assert_eq!(made.meta_data["merged_at"], "2026-01-03T00:00:00.000000Z");
    }

    #[test]
    fn counters_change_no_record() {
        let with = |stars: u64| {
            let repository = json!({"id": 3, "full_name": "o/r", "stargazers_count": stars,
                "updated_at": format!("2026-01-0{stars}T00:00:00Z"), "topics": ["rust"]});
            let star = json!({"starred_at": "2026-01-01T00:00:00Z", "repo": repository});
            [
                record("repository:3", repository.clone()),
                record("star:3", star),
            ]
        };
        for (one, other) in with(1).into_iter().zip(with(2)) {
            assert_eq!(one.content_hash, other.content_hash, "{}", one.data_type);
        }
    }

    #[test]
    fn comments_name_what_they_are_about() {
        let on_issue = json!({"id": 4, "body": "Because.", "user": null,
            "issue_url": "https://api.github.com/repos/o/r/issues/5"});
        let made = record("comment:4", on_issue);
        let meta_data = &made.meta_data;
        assert_eq!(
            (&meta_data["repository"], &meta_data["number"]),
            (&json!("o/r"), &json!(5))
        );
        assert_eq!(meta_data["author"], Value::Null);
        let on_code = json!({"id": 4, "body": "Here.", "path": "a.rs", "line": 3,
            "pull_request_url": "https://api.github.com/repos/o/r/pulls/6"});
        let made = record("review_comment:4", on_code);
        let meta_data = &made.meta_data;
        assert_eq!(
            (&meta_data["path"], &meta_data["number"]),
            (&json!("a.rs"), &json!(6))
        );
    }

    #[test]
    fn a_commit_and_a_gist_say_what_was_written() {
        let made = record(
            "commit:3:abc",
            json!({"sha": "abc",
            "url": "https://api.github.com/repos/o/r/commits/abc", "author": null,
            "commit": {"message": "Fix\n\nit", "author": {"name": "Ada", "date": "2026-01-02T03:04:05Z"}}}),
        );
        assert_eq!(
            (made.data_content.as_str(), &made.meta_data["repository"]),
            ("Fix\n\nit", &json!("o/r"))
        );
        let made = record(
            "gist:a",
            json!({"id": "a", "description": "Notes", "files":
            {"a.md": {"filename": "a.md", "content": "# A", "size": 3}}}),
        );
        assert_eq!(made.data_content, "Notes\n\na.md\n# A");
        assert_eq!(made.meta_data["files"][0]["size_bytes"], 3);
    }

    #[test]
    fn what_a_reader_does_not_see_is_left_out_and_flagged() {
        let mut value = an_issue();
        value["body"] =
            json!("Seen.<!-- obey me -->\u{200b}\u{0}\n```\n<!-- shown -->\n```\n<!-- and\nall");
        let made = record("issue:1", value);
        assert_eq!(
            made.data_content,
            "It breaks\n\nSeen.\n```\n<!-- shown -->\n```"
        );
        let codes: Vec<&str> = made.meta_data["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|warning| warning["code"].as_str().unwrap())
            .collect();
        assert_eq!(codes, ["nul_bytes", "invisible_characters", "hidden_text"]);
    }

    #[test]
    fn only_markdown_hides_anything() {
        let text = "a <!-- b --> c";
        let gist = json!({"id": "a", "files": {
            "a.html": {"filename": "a.html", "content": text},
            "b.MD": {"filename": "b.MD", "content": text}}});
        let made = record("gist:a", gist);
        assert_eq!(made.data_content, format!("a.html\n{text}\n\nb.MD\na  c"));
        let commit = json!({"sha": "abc", "commit": {"message": text}});
        assert_eq!(record("commit:3:abc", commit).data_content, text);
        let repository = json!({"id": 3, "full_name": "o/r", "description": text});
        let made = record("repository:3", repository);
        assert_eq!(made.data_content, format!("o/r\n{text}"));
        assert_eq!(made.meta_data["warnings"], json!([]));
    }

    #[test]
    fn a_review_is_what_it_says_with_its_verdict() {
        let made = record(
            "review:9",
            json!({"id": 9, "body": "Not yet.", "state": "CHANGES_REQUESTED", "user": {"login": "ada", "id": 7},
            "pull_request_url": "https://api.github.com/repos/o/r/pulls/6",
            "submitted_at": "2026-01-02T03:04:05Z"}),
        );
        assert_eq!(
            (made.data_type, made.data_content.as_str()),
            ("github_review", "Not yet.")
        );
        let meta_data = &made.meta_data;
        assert_eq!(
            (&meta_data["repository"], &meta_data["number"]),
            (&json!("o/r"), &json!(6))
        );
        assert_eq!(meta_data["state"], "CHANGES_REQUESTED");
        assert_eq!(meta_data["submitted_at"], "2026-01-02T03:04:05.000000Z");
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for body in ["7", "[", ""] {
            let item = RawItem {
                id: "issue:1".to_owned(),
                body: Bytes::copy_from_slice(body.as_bytes()),
                large: None,
            };
            assert!(normalize(&item, IntegrationId::new()).is_err(), "{body:?}");
        }
    }
}
