//! Statements with as many groups of arguments as there are rows: written out for SQLite, and for
//! PostgreSQL one array for each column, so that a statement is the same for any number of rows and
//! is parsed and planned once.
//!
//! What a statement says, and where it runs, is not known here.

use super::database::Value;

/// `n_rows` groups of `width` arguments between a head and a tail. The head ends in `VALUES`, or in
/// `IN` with one group.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) head: String,
    pub(super) n_rows: usize,
    pub(super) width: usize,
    pub(super) tail: &'static str,
}

/// An argument of PostgreSQL's: one, or a column of them.
#[derive(Debug, PartialEq)]
pub(super) enum Argument {
    One(Value),
    Integers(Vec<Option<i64>>),
    Reals(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Groups {
    /// Every argument has a place.
    pub(super) fn written_out(&self) -> String {
        let group = format!("({})", vec!["?"; self.width].join(", "));
        let groups = vec![group; self.n_rows].join(", ");
        format!("{} {groups} {}", self.head, self.tail)
    }

    /// The statement over arrays, with its arguments. A column whose arguments are of several kinds
    /// is no array, and everything is written out.
    pub(super) fn over_arrays(&self, values: Vec<Value>) -> (String, Vec<Argument>) {
        let n_before = self.head.matches('?').count();
        let n_grouped = self.n_rows * self.width;
        let (is_list, head) = match self.head.trim_end().strip_suffix("VALUES") {
            Some(head) => (false, head),
            None => (true, self.head.trim_end().trim_end_matches("IN")),
        };
        let width = if is_list { 1 } else { self.width };
        let grouped = values.get(n_before..n_before + n_grouped).unwrap_or_default();
        let columns: Option<Vec<Argument>> =
            (0..width).map(|column| array(grouped.iter().skip(column).step_by(width))).collect();
        let Some(columns) = columns.filter(|_| n_grouped > 0) else {
            return (self.written_out(), values.into_iter().map(Argument::One).collect());
        };
        let places: Vec<String> =
            columns.iter().map(|column| format!("?::{}[]", column.kind())).collect();
        let arrays = if is_list {
            format!("= ANY({})", places.join(", "))
        } else {
            let names: Vec<String> = (1..=width).map(|column| format!("column{column}")).collect();
            let (places, names) = (places.join(", "), names.join(", "));
            format!("SELECT * FROM UNNEST({places}) AS arrays ({names})")
        };
        let sql = format!("{head}{arrays} {}", self.tail);
        let mut values = values.into_iter();
        let mut arguments: Vec<Argument> =
            values.by_ref().take(n_before).map(Argument::One).collect();
        arguments.extend(columns);
        arguments.extend(values.skip(n_grouped).map(Argument::One));
        (sql, arguments)
    }
}

impl Argument {
    fn kind(&self) -> &'static str {
        match self {
            Self::One(Value::Integer(_)) | Self::Integers(_) => "bigint",
            Self::One(Value::Real(_)) | Self::Reals(_) => "double precision",
            Self::One(Value::Text(_)) | Self::Texts(_) => "text",
            Self::One(Value::Bytes(_)) | Self::Bytes(_) => "bytea",
        }
    }
}

/// A column as an array, if its arguments are of one kind. What is absent has any kind.
fn array<'a>(column: impl Iterator<Item = &'a Value> + Clone) -> Option<Argument> {
    let kind = column.clone().find(|value| !value.is_absent()).or(column.clone().next())?;
    macro_rules! gather {
        ($of:ident, $as:ident) => {
            column
                .map(|value| match value {
                    Value::$of(value) => Some(value.clone()),
                    absent if absent.is_absent() => Some(None),
                    _ => None,
                })
                .collect::<Option<_>>()
                .map(Argument::$as)
        };
    }
    match kind {
        Value::Integer(_) => gather!(Integer, Integers),
        Value::Real(_) => gather!(Real, Reals),
        Value::Text(_) => gather!(Text, Texts),
        Value::Bytes(_) => gather!(Bytes, Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(head: &str, (n_rows, width): (usize, usize), tail: &'static str) -> Groups {
        Groups { head: head.to_owned(), n_rows, width, tail }
    }

    #[test]
    fn rows_become_a_column_each() {
        let insert = groups("INSERT INTO t (a, b) VALUES", (2, 2), "ON CONFLICT DO NOTHING");
        let written = "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) ON CONFLICT DO NOTHING";
        assert_eq!(insert.written_out(), written);
        let absent = Value::Text(None);
        let values = vec![absent, Value::from("x"), Value::from(7_i64), Value::from("y")];
        let (sql, arguments) = insert.over_arrays(values);
        let expected = "INSERT INTO t (a, b) SELECT * FROM UNNEST(?::bigint[], ?::text[]) \
                        AS arrays (column1, column2) ON CONFLICT DO NOTHING";
        assert_eq!(sql, expected);
        let texts = Argument::Texts(vec![Some("x".into()), Some("y".into())]);
        assert_eq!(arguments, [Argument::Integers(vec![None, Some(7)]), texts]);
    }

    #[test]
    fn what_stands_before_and_behind_stays_there() {
        let update = groups("UPDATE t SET a = ? WHERE b = ? AND id IN", (1, 3), "AND c = ?");
        let ids = ["x", "y", "z"].map(Value::from);
        let (before, behind) = ([Value::from(1.5), Value::from(2_i64)], Value::from("c"));
        let values: Vec<Value> =
            before.iter().chain(&ids).chain([&behind]).cloned().collect::<Vec<_>>();
        let (sql, arguments) = update.over_arrays(values);
        assert_eq!(sql, "UPDATE t SET a = ? WHERE b = ? AND id = ANY(?::text[]) AND c = ?");
        let list = Argument::Texts(["x", "y", "z"].map(|id| Some(id.to_owned())).to_vec());
        let [first, second] = before.map(Argument::One);
        assert_eq!(arguments, [first, second, list, Argument::One(behind)]);
    }

    #[test]
    fn a_column_of_several_kinds_is_written_out() {
        let insert = groups("INSERT INTO t (a) VALUES", (2, 1), "");
        let values = vec![Value::from(1_i64), Value::from("x")];
        let (sql, arguments) = insert.over_arrays(values.clone());
        assert_eq!(sql, insert.written_out());
        assert_eq!(arguments, values.into_iter().map(Argument::One).collect::<Vec<_>>());
    }
}
