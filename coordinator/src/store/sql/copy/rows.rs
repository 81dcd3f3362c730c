//! The tables and their rows, as columns of the four kinds that both databases have.

use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, FromRow, Row as _, TypeInfo as _};

use crate::store::StoreError;
use crate::store::sql::convert::unsigned;
use crate::store::sql::database::{
    Connection, Place, Reading, Value, query_as, query_scalar, query_with_rows,
};
use crate::store::sql::error::from_driver;

/// Arguments of one statement, far below the databases' limits of 32,766 and 65,535.
const MAX_ARGUMENTS: usize = 2000;

/// A table with the statements that read it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    select: &'static str,
    count: &'static str,
}

macro_rules! tables {
    ($($name:literal $(order by $order:literal)?),* $(,)?) => {
        &[$(Table {
            name: $name,
            select: concat!("SELECT * FROM ", $name $(, " ORDER BY ", $order)?),
            count: concat!("SELECT COUNT(*) FROM ", $name),
        }),*]
    };
}

/// Every table, after those that it refers to.
pub(super) const TABLES: &[Table] = tables![
    "lease_tokens",
    "studies",
    "asked_evaluations",
    // Work refers to the work that it waits for, which waits for none.
    "work" order by "CASE WHEN depends_on IS NULL THEN 0 ELSE 1 END, id",
    "sources",
    "preparations",
    "runs",
    "trunks",
    "cells",
    "dropped_cells",
    "workers",
    "attempts",
    "members" order by "lease_token",
    "checkpoints",
    "evaluations",
    "points",
    "point_series",
    "point_chunks",
    "log_lines" order by "id",
    "events" order by "id",
    "fits",
];

/// A row of any table: its columns' names and values.
#[derive(Debug)]
struct AnyRow {
    names: Vec<String>,
    values: Vec<Value>,
}

/// A row by column, as text.
#[cfg(test)]
pub(in crate::store::sql) type DumpedRow = std::collections::BTreeMap<String, String>;

impl Table {
    /// Copies every row; how many there were.
    pub(super) async fn copy(
        &self,
        reading: &mut Reading,
        conn: &mut Connection,
    ) -> Result<u64, StoreError> {
        let mut rows = query_as::<AnyRow>(self.select).fetch(reading);
        let mut n_rows = 0;
        let mut waiting: Vec<AnyRow> = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(from_driver)? {
            n_rows += 1;
            let is_enough = (waiting.len() + 2) * row.values.len() > MAX_ARGUMENTS;
            waiting.push(row);
            if is_enough {
                self.insert(conn, std::mem::take(&mut waiting)).await?;
            }
        }
        self.insert(conn, waiting).await?;
        Ok(n_rows)
    }

    async fn insert(&self, conn: &mut Connection, rows: Vec<AnyRow>) -> Result<(), StoreError> {
        let Some(first) = rows.first() else { return Ok(()) };
        let head = format!("INSERT INTO {} ({}) VALUES", self.name, first.names.join(", "));
        let mut insert = query_with_rows(&head, (rows.len(), first.names.len()), "");
        for value in rows.into_iter().flat_map(|row| row.values) {
            insert = insert.bind(value);
        }
        insert.execute(conn).await.map_err(from_driver)?;
        Ok(())
    }

    /// Every row, in order.
    #[cfg(test)]
    pub(super) async fn dump(&self, reading: &mut Reading) -> Result<Vec<DumpedRow>, StoreError> {
        let rows: Vec<AnyRow> =
            query_as(self.select).fetch_all(reading).await.map_err(from_driver)?;
        let text = |value: Value| format!("{value:?}");
        let mut rows: Vec<DumpedRow> = rows
            .into_iter()
            .map(|row| row.names.into_iter().zip(row.values.into_iter().map(text)).collect())
            .collect();
        rows.sort();
        Ok(rows)
    }

    /// How many rows there are.
    pub(super) async fn count<'a>(&self, place: impl Into<Place<'a>>) -> Result<u64, StoreError> {
        let n_rows: i64 = query_scalar(self.count).fetch_one(place).await.map_err(from_driver)?;
        Ok(unsigned(n_rows))
    }
}

macro_rules! any_row {
    ($row:ty, $integer:literal, $real:literal, $text:literal, $bytes:literal) => {
        impl FromRow<'_, $row> for AnyRow {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                let (mut names, mut values) = (Vec::new(), Vec::new());
                for column in row.columns() {
                    let at = column.ordinal();
                    values.push(match column.type_info().name() {
                        $integer => Value::Integer(row.try_get(at)?),
                        $real => Value::Real(row.try_get(at)?),
                        $text => Value::Text(row.try_get(at)?),
                        $bytes => Value::Bytes(row.try_get(at)?),
                        other => {
                            let source = format!("a column of the type `{other}`").into();
                            let index = column.name().to_owned();
                            return Err(sqlx::Error::ColumnDecode { index, source });
                        }
                    });
                    names.push(column.name().to_owned());
                }
                Ok(Self { names, values })
            }
        }
    };
}

any_row!(SqliteRow, "INTEGER", "REAL", "TEXT", "BLOB");
any_row!(PgRow, "INT8", "FLOAT8", "TEXT", "BYTEA");
