//! The services that a person can connect, by the names used in bodies, tables and variables.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An outside service. Its text is the value of `service_name` everywhere.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ServiceName {
    /// Google's mail.
    Gmail,
    /// GitHub.
    Github,
    /// Google Calendar.
    GoogleCalendar,
    /// Notion.
    Notion,
    /// Slack.
    Slack,
    /// Google Drive.
    GoogleDrive,
    /// LinkedIn.
    Linkedin,
    /// X, under the name it had.
    Twitter,
    /// Spotify.
    Spotify,
}

impl ServiceName {
    /// Every service, in the order in which they are listed to people.
    pub const ALL: [Self; 9] = [
        Self::Gmail,
        Self::Github,
        Self::GoogleCalendar,
        Self::Notion,
        Self::Slack,
        Self::GoogleDrive,
        Self::Linkedin,
        Self::Twitter,
        Self::Spotify,
    ];

    /// The name as it stands in bodies and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gmail => "gmail",
            Self::Github => "github",
            Self::GoogleCalendar => "google_calendar",
            Self::Notion => "notion",
            Self::Slack => "slack",
            Self::GoogleDrive => "google_drive",
            Self::Linkedin => "linkedin",
            Self::Twitter => "twitter",
            Self::Spotify => "spotify",
        }
    }

    /// Whether its items are e-mails.
    pub fn gives_mail(self) -> bool {
        matches!(self, Self::Gmail)
    }

    /// The name as people write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Gmail => "Gmail",
            Self::Github => "GitHub",
            Self::GoogleCalendar => "Google Calendar",
            Self::Notion => "Notion",
            Self::Slack => "Slack",
            Self::GoogleDrive => "Google Drive",
            Self::Linkedin => "LinkedIn",
            Self::Twitter => "X",
            Self::Spotify => "Spotify",
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no service.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown service {0:?}; known are gmail, github, google_calendar, notion, slack, google_drive, linkedin, twitter, spotify"
)]
pub struct UnknownService(pub String);

impl FromStr for ServiceName {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.as_str() == text)
            .ok_or_else(|| UnknownService(text.to_owned()))
    }
}
