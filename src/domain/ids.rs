//! Ids are UUID v7 and each kind has a type, so that one cannot be taken for another.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, SchemaFormat, Type, schema::Schema},
};
use uuid::Uuid;

/// A person, or whatever else a footprint belongs to.
pub type EntityId = Id<kind::Entity>;
/// One entity's connected account at one service.
pub type IntegrationId = Id<kind::Integration>;
/// One execution of a sync or an import.
pub type RunId = Id<kind::Run>;
/// One row of `raw_data`.
pub type RecordId = Id<kind::Record>;
/// One outbox row, and so one CloudEvent.
pub type EventId = Id<kind::Event>;

/// What an id stands for; no values of these exist.
pub mod kind {
    /// See [`super::EntityId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Entity {}
    /// See [`super::IntegrationId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Integration {}
    /// See [`super::RunId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Run {}
    /// See [`super::RecordId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Record {}
    /// See [`super::EventId`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Event {}
}

/// A UUID that stands for one `Kind` of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id<Kind>(pub Uuid, PhantomData<Kind>);

impl<Kind> Id<Kind> {
    /// A new id, later in order than those this process made before it.
    #[expect(clippy::new_without_default, reason = "every call gives another value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7(), PhantomData)
    }
}

impl<Kind> From<Uuid> for Id<Kind> {
    fn from(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
}

impl<Kind> fmt::Display for Id<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<Kind> FromStr for Id<Kind> {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Uuid>().map(Self::from)
    }
}

impl<Kind> Serialize for Id<Kind> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, Kind> Deserialize<'de> for Id<Kind> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::from)
    }
}

impl<Kind> PartialSchema for Id<Kind> {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
            .description(Some("A UUID. Those that nucleus makes are version 7."));
        RefOr::T(schema.build().into())
    }
}

/// One name for all kinds: outside they are the same type.
impl<Kind> ToSchema for Id<Kind> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Id")
    }
}
