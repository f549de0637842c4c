//! Conversion between the values of SQLite and the types of Kiln.

use std::fmt::Display;
use std::str::FromStr;

use kiln_types::{AttemptId, BlobHash, Epoch, JobId, StepIndex, TaskId, TaskIndex, WorkerId};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};

use crate::StoreError;

pub(crate) type StoreResult<T> = std::result::Result<T, StoreError>;

pub(crate) fn to_json(what: &'static str, value: &impl serde::Serialize) -> StoreResult<String> {
    serde_json::to_string(value).map_err(|e| StoreError::damaged(what, e))
}

/// Typed columns of a row, by name; an error names the column.
pub(crate) trait Columns {
    fn raw<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, column: &'static str) -> StoreResult<T>;

    /// A number that is stored as the signed number of the same bits.
    fn u64(&self, column: &'static str) -> StoreResult<u64> {
        Ok(self.raw::<i64>(column)?.cast_unsigned())
    }

    fn number<T: TryFrom<i64, Error: Display>>(&self, column: &'static str) -> StoreResult<T> {
        T::try_from(self.raw::<i64>(column)?).map_err(|e| StoreError::damaged(column, e))
    }

    fn number_opt<T: TryFrom<i64, Error: Display>>(&self, column: &'static str) -> StoreResult<Option<T>> {
        let number = self.raw::<Option<i64>>(column)?.map(T::try_from).transpose();
        number.map_err(|e| StoreError::damaged(column, e))
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: &'static str) -> StoreResult<T> {
        self.raw::<&str>(column)?.parse().map_err(|e| StoreError::damaged(column, e))
    }

    fn parsed_opt<T: FromStr<Err: Display>>(&self, column: &'static str) -> StoreResult<Option<T>> {
        let text: Option<&str> = self.raw(column)?;
        text.map(str::parse).transpose().map_err(|e| StoreError::damaged(column, e))
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> StoreResult<T> {
        serde_json::from_str(self.raw(column)?).map_err(|e| StoreError::damaged(column, e))
    }

    fn json_opt<T: DeserializeOwned>(&self, column: &'static str) -> StoreResult<Option<T>> {
        let text: Option<&str> = self.raw(column)?;
        text.map(serde_json::from_str).transpose().map_err(|e| StoreError::damaged(column, e))
    }

    fn hash(&self, column: &'static str) -> StoreResult<BlobHash> {
        let bytes: &[u8] = self.raw(column)?;
        bytes.try_into().map(BlobHash::from_bytes).map_err(|e| StoreError::damaged(column, e))
    }

    fn hash_opt(&self, column: &'static str) -> StoreResult<Option<BlobHash>> {
        let bytes: Option<&[u8]> = self.raw(column)?;
        let hash = bytes.map(|bytes| bytes.try_into().map(BlobHash::from_bytes)).transpose();
        hash.map_err(|e| StoreError::damaged(column, e))
    }

    fn worker(&self, column: &'static str) -> StoreResult<WorkerId> {
        let id = WorkerId::from_bits(self.u64(column)?);
        id.ok_or_else(|| StoreError::damaged(column, "no worker has the id 0"))
    }

    fn step(&self) -> StoreResult<StepIndex> {
        Ok(StepIndex(self.number("step")?))
    }

    fn index(&self, column: &'static str) -> StoreResult<TaskIndex> {
        Ok(TaskIndex(self.number(column)?))
    }

    /// The task of the columns job, step and idx.
    fn task(&self) -> StoreResult<TaskId> {
        Ok(TaskId { job: JobId(self.u64("job")?), step: self.step()?, index: self.index("idx")? })
    }

    fn attempt(&self, epoch: &'static str, counter: &'static str) -> StoreResult<AttemptId> {
        Ok(AttemptId { epoch: Epoch(self.number(epoch)?), counter: self.u64(counter)? })
    }
}

impl Columns for SqliteRow {
    fn raw<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(&'r self, column: &'static str) -> StoreResult<T> {
        self.try_get(column).map_err(|e| StoreError::damaged(column, e))
    }
}
