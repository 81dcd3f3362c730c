//! The two databases behind one way to ask: statements, their arguments, and where they run. A
//! database in memory is SQLite, with a session that can break.
//!
//! A statement is written once, for both. What differs is translated here and nowhere else: the
//! places of arguments (`?` and `?1`, in PostgreSQL `$1`) and the larger and smaller of two numbers
//! (`GREATEST` and `LEAST`, in SQLite `MAX` and `MIN`), and groups of arguments (`groups`). It knows no
//! table.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

use futures::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, FromRow, SqlSafeStr as _, SqlStr, Transaction};

use super::groups::{Argument, Groups};
use crate::store::memory::{Fate, Line, Session, lost};

/// One connection, for the one that writes.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
    Memory(Box<SqliteConnection>, Line),
}

/// Connections for those that read.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    Memory(SqlitePool, Session),
}

/// Several reads of one consistent state.
#[derive(Debug)]
pub(super) enum Reading {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Where a statement runs.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
    Memory(&'a mut SqliteConnection, &'a Line),
    Pool(&'a Pool),
}

/// A connection for one statement: lent, or taken from a pool. What the drivers' generic code is
/// made for is thus one type for each database, which halves the time to compile this crate.
enum Held<'a> {
    Sqlite(&'a mut SqliteConnection),
    SqlitePooled(PoolConnection<Sqlite>),
    Postgres(&'a mut PgConnection),
    PostgresPooled(PoolConnection<Postgres>),
    /// Of a database in memory whose power fails with this statement.
    Unheard(&'a mut SqliteConnection),
}

/// The connection itself.
enum Bare<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

impl<'a> Place<'a> {
    async fn hold(self) -> Result<Held<'a>, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(connection) => Held::Sqlite(connection),
            Self::Postgres(connection) => Held::Postgres(connection),
            Self::Memory(connection, line) => match line.fate() {
                Fate::Runs => Held::Sqlite(connection),
                Fate::RunsUnheard => Held::Unheard(connection),
                Fate::Lost => return Err(lost()),
            },
            Self::Pool(Pool::Memory(pool, session)) => {
                session.pause().await;
                if !session.is_on() {
                    return Err(lost());
                }
                Held::SqlitePooled(pool.acquire().await?)
            }
            Self::Pool(Pool::Sqlite(pool)) => Held::SqlitePooled(pool.acquire().await?),
            Self::Pool(Pool::Postgres(pool)) => Held::PostgresPooled(pool.acquire().await?),
        })
    }
}

impl Held<'_> {
    /// What a statement did, if somebody hears of it.
    fn answer<T>(&self, did: T) -> Result<T, sqlx::Error> {
        match self {
            Self::Unheard(_) => Err(lost()),
            Self::Sqlite(_)
            | Self::SqlitePooled(_)
            | Self::Postgres(_)
            | Self::PostgresPooled(_) => Ok(did),
        }
    }

    fn bare(&mut self) -> Bare<'_> {
        match self {
            Self::Sqlite(connection) | Self::Unheard(connection) => Bare::Sqlite(connection),
            Self::SqlitePooled(connection) => Bare::Sqlite(connection),
            Self::Postgres(connection) => Bare::Postgres(connection),
            Self::PostgresPooled(connection) => Bare::Postgres(connection),
        }
    }
}

impl<'a> From<&'a mut Connection> for Place<'a> {
    fn from(connection: &'a mut Connection) -> Self {
        match connection {
            Connection::Sqlite(connection) => Self::Sqlite(connection),
            Connection::Postgres(connection) => Self::Postgres(connection),
            Connection::Memory(connection, line) => Self::Memory(connection, line),
        }
    }
}

impl<'a> From<&'a Pool> for Place<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a> From<&'a mut Reading> for Place<'a> {
    fn from(reading: &'a mut Reading) -> Self {
        match reading {
            Reading::Sqlite(transaction) => Self::Sqlite(transaction),
            Reading::Postgres(transaction) => Self::Postgres(transaction),
        }
    }
}

impl Connection {
    /// Begins a transaction that writes. SQLite's write lock is taken at the start, so that no
    /// command meets a conflict half-way; in PostgreSQL the one writer has no other beside it.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let sql = match self {
            Self::Sqlite(_) | Self::Memory(..) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        };
        query(sql).execute(self).await.map(|_| ())
    }

    /// Commits what was begun.
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        if let Self::Memory(_, line) = self {
            line.announce_commit();
        }
        query("COMMIT").execute(self).await.map(|_| ())
    }

    /// Says goodbye. SQLite's log is folded into the file, so that a copy of it is a copy of the
    /// store; in PostgreSQL a standby may lead at once.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        if let Self::Sqlite(_) = &self {
            query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self).await?;
        }
        match self {
            Self::Sqlite(connection) | Self::Memory(connection, _) => connection.close().await,
            Self::Postgres(connection) => super::postgres::resign(*connection).await,
        }
    }
}

impl Pool {
    /// Begins reading from one consistent state.
    pub(super) async fn begin(&self) -> Result<Reading, sqlx::Error> {
        match self {
            Self::Memory(pool, session) => {
                session.pause().await;
                if !session.is_on() {
                    return Err(lost());
                }
                pool.begin().await.map(Reading::Sqlite)
            }
            Self::Sqlite(pool) => pool.begin().await.map(Reading::Sqlite),
            Self::Postgres(pool) => {
                let transaction = pool
                    .begin_with("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    .await?;
                Ok(Reading::Postgres(transaction))
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) | Self::Memory(pool, _) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A row that both databases can give.
pub(super) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Record for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// An argument. An absent one has its type all the same, because PostgreSQL asks for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(Option<i64>),
    Real(Option<f64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl Value {
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Integer(value) => value.is_none(),
            Self::Real(value) => value.is_none(),
            Self::Text(value) => value.is_none(),
            Self::Bytes(value) => value.is_none(),
        }
    }
}

macro_rules! into_value {
    ($($from:ty => $variant:ident($convert:expr)),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(Some($convert(value)))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )*};
}

into_value! {
    i64 => Integer(std::convert::identity),
    u32 => Integer(i64::from),
    i32 => Integer(i64::from),
    // A flag is 0 or 1 in both databases.
    bool => Integer(i64::from),
    f64 => Real(std::convert::identity),
    String => Text(without_nul),
    &str => Text(|text: &str| without_nul(text.to_owned())),
    &String => Text(|text: &String| without_nul(text.clone())),
    Vec<u8> => Bytes(std::convert::identity),
}

/// PostgreSQL's text cannot hold the character NUL, which a crashed trainer may have written into its
/// log; both databases keep the sign for a character that cannot be shown.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A statement with its arguments.
#[derive(Debug)]
pub(super) struct Query {
    sql: Sql,
    values: Vec<Value>,
}

#[derive(Debug)]
enum Sql {
    Written(&'static str),
    Grouped(Groups),
}

/// A statement whose rows are wanted.
#[derive(Debug)]
pub(super) struct QueryAs<T> {
    query: Query,
    row: PhantomData<fn() -> T>,
}

/// A statement whose rows have one column.
#[derive(Debug)]
pub(super) struct QueryScalar<T> {
    query: Query,
    column: PhantomData<fn() -> T>,
}

/// What a statement did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Executed {
    n_rows: u64,
}

impl Executed {
    pub(super) fn rows_affected(self) -> u64 {
        self.n_rows
    }
}

/// A statement without rows.
pub(super) fn query(sql: &'static str) -> Query {
    Query { sql: Sql::Written(sql), values: Vec::new() }
}

/// A statement whose rows are wanted.
pub(super) fn query_as<T>(sql: &'static str) -> QueryAs<T> {
    QueryAs { query: query(sql), row: PhantomData }
}

/// A statement whose rows have one column.
pub(super) fn query_scalar<T>(sql: &'static str) -> QueryScalar<T> {
    QueryScalar { query: query(sql), column: PhantomData }
}

/// A statement with `n_rows` groups of `width` arguments between its head and its tail, such as
/// `INSERT … VALUES (?, ?), (?, ?) ON CONFLICT …`. Head and tail are our own text and a
/// table's own names, never a caller's.
pub(super) fn query_with_rows(
    head: &str,
    (n_rows, width): (usize, usize),
    tail: &'static str,
) -> Query {
    let groups = Groups { head: head.to_owned(), n_rows, width, tail };
    Query { sql: Sql::Grouped(groups), values: Vec::with_capacity(n_rows * width) }
}

/// A statement with a list of `n` arguments after its head, such as `SELECT … WHERE id IN (?, ?)`.
pub(super) fn query_with_list<T>(head: &'static str, n: usize) -> QueryAs<T> {
    query_with_rows(head, (1, n), "").with_rows()
}

/// A statement with its arguments on the database at hand: `make` with the database first and the
/// type of a row after it, and what to do with it there.
macro_rules! on_each {
    ($query:expr, $bare:expr, $make:ident($($row:ty)?), |$bound:ident, $on:ident| $run:expr) => {{
        let Query { sql, values } = $query;
        match $bare {
            Bare::Sqlite($on) => {
                let $bound = bound!(sqlx::$make::<Sqlite $(, $row)?>(sql.for_sqlite()), values);
                $run
            }
            Bare::Postgres($on) => {
                let (sql, arguments) = sql.for_postgres(values);
                let mut $bound = sqlx::$make::<Postgres $(, $row)?>(sql);
                for argument in arguments {
                    $bound = match argument {
                        Argument::One(value) => bound!($bound, [value]),
                        Argument::Integers(column) => $bound.bind(column),
                        Argument::Reals(column) => $bound.bind(column),
                        Argument::Texts(column) => $bound.bind(column),
                        Argument::Bytes(column) => $bound.bind(column),
                    };
                }
                $run
            }
        }
    }};
}

macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Real(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Query {
    /// The same where its rows are wanted.
    pub(super) fn with_rows<T>(self) -> QueryAs<T> {
        QueryAs { query: self, row: PhantomData }
    }

    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Carries it out.
    pub(super) async fn execute<'a>(
        self,
        place: impl Into<Place<'a>>,
    ) -> Result<Executed, sqlx::Error> {
        let mut held = place.into().hold().await?;
        let n_rows = on_each!(self, held.bare(), query(), |query, on| {
            query.execute(on).await?.rows_affected()
        });
        held.answer(Executed { n_rows })
    }
}

impl<T: Record> QueryAs<T> {
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.query.values.push(value.into());
        self
    }

    /// All rows.
    pub(super) async fn fetch_all<'a>(
        self,
        place: impl Into<Place<'a>>,
    ) -> Result<Vec<T>, sqlx::Error> {
        let mut held = place.into().hold().await?;
        let rows =
            on_each!(self.query, held.bare(), query_as(T), |query, on| query.fetch_all(on).await)?;
        held.answer(rows)
    }

    /// The one row.
    pub(super) async fn fetch_one<'a>(self, place: impl Into<Place<'a>>) -> Result<T, sqlx::Error> {
        let mut held = place.into().hold().await?;
        let row =
            on_each!(self.query, held.bare(), query_as(T), |query, on| query.fetch_one(on).await)?;
        held.answer(row)
    }

    /// The row, if there is one.
    pub(super) async fn fetch_optional<'a>(
        self,
        place: impl Into<Place<'a>>,
    ) -> Result<Option<T>, sqlx::Error> {
        let mut held = place.into().hold().await?;
        let row = on_each!(self.query, held.bare(), query_as(T), |query, on| {
            query.fetch_optional(on).await
        })?;
        held.answer(row)
    }

    /// The rows one after the other.
    pub(super) fn fetch<'a>(self, reading: &'a mut Reading) -> BoxStream<'a, Result<T, sqlx::Error>>
    where
        T: 'a,
    {
        let bare = match reading {
            Reading::Sqlite(transaction) => Bare::Sqlite(transaction),
            Reading::Postgres(transaction) => Bare::Postgres(transaction),
        };
        on_each!(self.query, bare, query_as(T), |query, on| query.fetch(on))
    }
}

impl<T> QueryScalar<T>
where
    (T,): Record,
{
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.query.values.push(value.into());
        self
    }

    /// The column of all rows.
    pub(super) async fn fetch_all<'a>(
        self,
        place: impl Into<Place<'a>>,
    ) -> Result<Vec<T>, sqlx::Error> {
        let rows: Vec<(T,)> = self.into_rows().fetch_all(place).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// The column of the one row.
    pub(super) async fn fetch_one<'a>(self, place: impl Into<Place<'a>>) -> Result<T, sqlx::Error> {
        self.into_rows().fetch_one(place).await.map(|(value,)| value)
    }

    /// The column of the row, if there is one.
    pub(super) async fn fetch_optional<'a>(
        self,
        place: impl Into<Place<'a>>,
    ) -> Result<Option<T>, sqlx::Error> {
        Ok(self.into_rows().fetch_optional(place).await?.map(|(value,)| value))
    }

    fn into_rows(self) -> QueryAs<(T,)> {
        QueryAs { query: self.query, row: PhantomData }
    }
}

impl Sql {
    fn for_sqlite(self) -> SqlStr {
        match self {
            Self::Written(sql) => translated(sql, "sqlite", to_sqlite).into_sql_str(),
            Self::Grouped(groups) => AssertSqlSafe(to_sqlite(&groups.written_out())).into_sql_str(),
        }
    }

    fn for_postgres(self, values: Vec<Value>) -> (SqlStr, Vec<Argument>) {
        match self {
            Self::Written(sql) => {
                let sql = translated(sql, "postgres", to_postgres).into_sql_str();
                (sql, values.into_iter().map(Argument::One).collect())
            }
            Self::Grouped(groups) => {
                let (sql, arguments) = groups.over_arrays(values);
                (AssertSqlSafe(to_postgres(&sql)).into_sql_str(), arguments)
            }
        }
    }
}

/// The translation of a statement of this program, made once. There are as many as statements, so
/// that they may stay for good.
fn translated(
    sql: &'static str,
    database: &'static str,
    translate: fn(&str) -> String,
) -> &'static str {
    static KNOWN: OnceLock<Mutex<HashMap<(&'static str, &'static str), &'static str>>> =
        OnceLock::new();
    let mut known =
        KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    known.entry((database, sql)).or_insert_with(|| Box::leak(translate(sql).into_boxed_str()))
}

fn to_sqlite(sql: &str) -> String {
    sql.replace("GREATEST(", "MAX(").replace("LEAST(", "MIN(")
}

/// `?1` keeps its number, `?` takes the next one; a statement has only one of the two.
fn to_postgres(sql: &str) -> String {
    let mut translated = String::with_capacity(sql.len() + 16);
    let mut n_places = 0;
    let mut rest = sql.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter != '?' {
            translated.push(letter);
            continue;
        }
        translated.push('$');
        if !rest.peek().is_some_and(char::is_ascii_digit) {
            n_places += 1;
            translated.push_str(&i32::to_string(&n_places));
        }
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_functions_are_translated() {
        let sql = "UPDATE work SET n = GREATEST(n, ?), m = LEAST(m, ?) WHERE id = ?";
        assert_eq!(to_sqlite(sql), "UPDATE work SET n = MAX(n, ?), m = MIN(m, ?) WHERE id = ?");
        let postgres = "UPDATE work SET n = GREATEST(n, $1), m = LEAST(m, $2) WHERE id = $3";
        assert_eq!(to_postgres(sql), postgres);
        assert_eq!(to_postgres("SELECT ?1, ?2, ?1"), "SELECT $1, $2, $1");
    }
}
