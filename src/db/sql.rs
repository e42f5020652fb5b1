//! Statements as text with bound values, the same for both databases: `$1`, `$2` … are understood
//! by PostgreSQL and by SQLite.

use sea_orm::{
    ColIdx, ConnectionTrait, FromQueryResult, QueryResult, Statement, TryGetError, TryGetable,
    Value,
};
use uuid::Uuid;

use super::{DbError, Slice, Slicing};
use crate::domain::{ids::Id, sync::Scope};

#[cfg(test)]
tokio::task_local! {
    /// Each statement of a test's task with the steps that SQLite takes for it.
    pub(super) static PLANS: std::cell::RefCell<Vec<(String, Vec<String>)>>;
}

/// A statement under construction.
#[derive(Debug, Clone)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    /// Starts with `text`, in which `$1` and so on stand for `values`.
    pub(super) fn new<const N: usize>(text: impl Into<String>, values: [Value; N]) -> Self {
        Self {
            text: text.into(),
            values: values.into(),
        }
    }

    /// Appends text without values.
    pub(super) fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends one value.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self
    }

    /// Appends `(value, value, …)`.
    pub(super) fn tuple<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Self {
        self.push("(").list(values).push(")")
    }

    /// Appends `value, value, …`.
    pub(super) fn list<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self = self.bind(value);
        }
        self
    }

    /// Restricts to what `scope` may see; the statement must already have a condition.
    pub(super) fn owned_by(self, scope: Scope) -> Self {
        match scope {
            Scope::Operator => self,
            Scope::Entity(entity) => self.push(" AND entity_id = ").bind(entity),
        }
    }

    /// Ends a list that is read by id, newest first: one row more than asked for tells whether more
    /// follow. The statement must already have a condition.
    pub(super) async fn slice<R: FromQueryResult>(
        mut self,
        slicing: Slicing,
        conn: &impl ConnectionTrait,
    ) -> Result<Slice<R>, DbError> {
        if let Some(after) = slicing.after {
            self = self.push(" AND id < ").bind(after);
        }
        let sql = self
            .push(" ORDER BY id DESC LIMIT ")
            .bind(slicing.limit as i64 + 1);
        Ok(Slice::cut(sql.all(conn).await?, slicing.limit))
    }

    /// Runs the statement and says how many rows it changed.
    pub(super) async fn execute(self, conn: &impl ConnectionTrait) -> Result<u64, DbError> {
        #[cfg(test)]
        self.note_plan(conn).await;
        let statement = self.statement(conn);
        Ok(conn.execute_raw(statement).await?.rows_affected())
    }

    /// The first row, if there is one.
    pub(super) async fn one<R: FromQueryResult>(
        self,
        conn: &impl ConnectionTrait,
    ) -> Result<Option<R>, DbError> {
        #[cfg(test)]
        self.note_plan(conn).await;
        let statement = self.statement(conn);
        match conn.query_one_raw(statement).await? {
            Some(row) => Ok(Some(R::from_query_result(&row, "")?)),
            None => Ok(None),
        }
    }

    /// All rows.
    pub(super) async fn all<R: FromQueryResult>(
        self,
        conn: &impl ConnectionTrait,
    ) -> Result<Vec<R>, DbError> {
        #[cfg(test)]
        self.note_plan(conn).await;
        let statement = self.statement(conn);
        let mut rows = Vec::new();
        for row in conn.query_all_raw(statement).await? {
            rows.push(R::from_query_result(&row, "")?);
        }
        Ok(rows)
    }

    /// The first column of the first row; the statement must give one.
    pub(super) async fn scalar<T: TryGetable>(
        self,
        conn: &impl ConnectionTrait,
    ) -> Result<T, DbError> {
        self.optional(conn).await?.ok_or(DbError::NotFound)
    }

    /// The first column of the first row, if there is one.
    pub(super) async fn optional<T: TryGetable>(
        self,
        conn: &impl ConnectionTrait,
    ) -> Result<Option<T>, DbError> {
        #[cfg(test)]
        self.note_plan(conn).await;
        let statement = self.statement(conn);
        match conn.query_one_raw(statement).await? {
            Some(row) => Ok(Some(row.try_get_by_index(0)?)),
            None => Ok(None),
        }
    }

    /// The statement that tells how SQLite carries this one out.
    #[cfg(test)]
    pub(super) fn explained(mut self) -> Self {
        self.text = format!("EXPLAIN QUERY PLAN {}", self.text);
        self
    }

    /// Notes how SQLite carries this one out, where a test asks for it.
    #[cfg(test)]
    async fn note_plan(&self, conn: &impl ConnectionTrait) {
        if PLANS.try_with(|_| ()).is_err() {
            return;
        }
        let statement = self.clone().explained().statement(conn);
        let rows = conn.query_all_raw(statement).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}: {}", self.text));
        let steps = rows.iter().map(|row| row.try_get_by("detail"));
        let steps: Result<Vec<String>, sea_orm::DbErr> = steps.collect();
        let plan = (self.text.clone(), steps.unwrap_or_default());
        PLANS.with(|plans| plans.borrow_mut().push(plan));
    }

    fn statement(self, conn: &impl ConnectionTrait) -> Statement {
        Statement::from_sql_and_values(conn.get_database_backend(), self.text, self.values)
    }
}

impl<Kind> From<Id<Kind>> for Value {
    fn from(id: Id<Kind>) -> Self {
        Self::from(id.0)
    }
}

impl<Kind> TryGetable for Id<Kind> {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        Uuid::try_get_by(row, index).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntityId;

    #[test]
    fn values_are_numbered_in_the_order_they_are_bound() {
        let entity = EntityId::new();
        let sql = Sql::new("a = $1", [1.into()])
            .push(" AND b IN ")
            .tuple(["x", "y"])
            .owned_by(Scope::Entity(entity));
        assert_eq!(sql.text, "a = $1 AND b IN ($2, $3) AND entity_id = $4");
        assert_eq!(sql.values.len(), 4);
    }
}
