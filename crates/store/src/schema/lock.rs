//! The lock that lets only one migration run at a time.

use sqlx::PgConnection;

use super::report::Session;

/// The advisory lock of the database that sqlx's own migrator takes too, so that this one and that of an older release
/// exclude each other.
///
/// It is only ever tried for, by statements of their own: a statement that waits for a lock keeps its snapshot, which a
/// concurrent index build of the holder would wait for in turn, a deadlock. It belongs to the session and ends with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MigrationLock {
    id: i64,
}

impl MigrationLock {
    /// The lock of the database that the connection is to.
    pub(super) async fn of_database(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(connection).await?;
        Ok(Self { id: lock_id(&database) })
    }

    /// Takes the lock if nobody holds it, and says whether it did.
    pub(super) async fn try_take(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(self.id).fetch_one(connection).await
    }

    /// Gives the lock back.
    pub(super) async fn release(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(self.id).execute(connection).await?;
        Ok(())
    }

    /// Who holds the lock now.
    pub(super) async fn holder(self, connection: &mut PgConnection) -> Result<Option<Session>, sqlx::Error> {
        // A key of 64 bits is shown in two halves, and with 1 as its objsubid.
        sqlx::query_as(
            "SELECT a.pid, a.application_name AS application, a.usename::text AS role, a.state,
                    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds
             FROM pg_locks l
             JOIN pg_stat_activity a ON a.pid = l.pid
             JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
               AND l.classid::bigint = ($1 >> 32) & 4294967295 AND l.objid::bigint = $1 & 4294967295",
        )
        .bind(self.id)
        .fetch_optional(connection)
        .await
    }
}

/// The key that sqlx 0.8 derives from the database's name (`generate_lock_id` in sqlx-postgres).
fn lock_id(database: &str) -> i64 {
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    0x3d32_ad9e * i64::from(CRC.checksum(database.as_bytes()))
}
