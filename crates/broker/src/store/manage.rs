//! What operators manage: agents, pins, people. Each write puts its record on the log in the same transaction.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, params};
use toolgate_core::digest::Digest;
use toolgate_core::name::{AgentId, GroupName, PersonName, ToolName};
use toolgate_core::tool::Effect;

use super::batch::Batch;
use super::connection::{sql, unsql};
use super::{Kind, SqliteStore, bytes_of, owner};
use crate::person::TOTP;
use crate::port::{Line, Position, StoreError};

/// Why a change was not made. Nothing was written, unless the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// It does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// It is there already.
    #[error("{what}")]
    Exists {
        /// What is.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// What is to be changed is not there.
    #[error("there is no {0}")]
    Missing(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ManageError {
    /// A person is enrolled in this way already.
    #[must_use]
    pub fn enrolled(name: &str, method: &str) -> Self {
        let with = if method == TOTP { "one-time codes" } else { "a passphrase" };
        Self::Exists {
            what: format!("person `{name}` is enrolled with {with} already"),
            hint: format!("`toolgate person remove {name}` first"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Exists { hint, .. } => Some(hint),
            Self::Conflict(_) | Self::Missing(_) | Self::Store(_) => None,
        }
    }
}

/// What a change comes to inside its transaction.
pub(super) type Managed<T> = Result<T, ManageError>;

/// An agent as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its name.
    pub name: AgentId,
    /// The SHA-256 hash of its token, if it has one.
    pub token_hash: Option<[u8; 32]>,
    /// The user that it is when it comes over a Unix socket, if that is enough.
    pub uid: Option<u32>,
    /// Its groups.
    pub groups: Vec<GroupName>,
    /// Whether it is refused everything.
    pub disabled: bool,
    /// When it was added, in milliseconds since 1970.
    pub added_ms: u64,
}

/// A tool's definition as somebody accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The tool.
    pub tool: ToolName,
    /// The definition, byte for byte as the server sent it.
    pub definition: Bytes,
    /// What the tool does.
    pub effects: BTreeSet<Effect>,
    /// The digest of the definition.
    pub digest: Digest,
    /// Who accepted it.
    pub accepted_by: String,
    /// When, in milliseconds since 1970.
    pub accepted_ms: u64,
}

/// A person, and one way in which they prove an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRow {
    /// Their name.
    pub name: PersonName,
    /// How they prove an answer: `ed25519` or `totp`.
    pub method: String,
    /// What others check an answer with. Empty for `totp`.
    pub public_key: Bytes,
    /// What they prove it with: the private key under their passphrase, or the sealed seed of the codes.
    pub sealed: Bytes,
    /// When they were enrolled, in milliseconds since 1970.
    pub added_ms: u64,
}

/// Which vault was written last, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRow {
    /// Its 16 random bytes.
    pub id: Vec<u8>,
    /// Its generation.
    pub generation: u64,
}

/// A credential that was minted, or is being, and may be good for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Its 16 random bytes.
    pub id: Vec<u8>,
    /// The secret that it is minted from.
    pub secret: String,
    /// Who mints.
    pub provider: String,
    /// The server that it is for.
    pub server: String,
    /// The run of an agent that it is for.
    pub session: String,
    /// When it ends by itself at the latest, in milliseconds since 1970.
    pub until_ms: u64,
    /// What it is revoked with, sealed by the vault.
    pub handle: Vec<u8>,
    /// Whether the provider has minted it, as far as is known.
    pub live: bool,
    /// Whether somebody wants it revoked.
    pub revoke: bool,
    /// Whether the gate that has it runs. It is not written.
    pub held: bool,
}

impl SqliteStore {
    /// Adds an agent.
    ///
    /// # Errors
    /// The name, the token or the user is taken; or the store failed.
    pub async fn add_agent(&self, agent: AgentRow, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let name = agent.name.as_str();
            if batch.exists("SELECT 1 FROM agent WHERE name = ?1", [name])? {
                return Ok(Err(ManageError::Exists {
                    what: format!("agent `{name}` exists already"),
                    hint: format!("`toolgate agent rotate {name}` gives it another token"),
                }));
            }
            if batch.exists("SELECT 1 FROM agent WHERE token_hash = ?1", [agent.token_hash])? {
                return Ok(Err(ManageError::Conflict("another agent has this token".to_owned())));
            }
            if batch.exists("SELECT 1 FROM agent WHERE uid = ?1", [agent.uid])? {
                return Ok(Err(ManageError::Conflict("another agent is this user already".to_owned())));
            }
            batch
                .sql()
                .prepare_cached(
                    "INSERT INTO agent (name, token_hash, uid, groups, disabled, added_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    name,
                    agent.token_hash,
                    agent.uid,
                    words(&agent.groups),
                    agent.disabled,
                    sql(agent.added_ms)
                ])?;
            Ok(Ok(()))
        })
        .await
    }

    /// Gives an agent another token; the old one is refused from then on.
    ///
    /// # Errors
    /// There is no such agent, or the token is taken; or the store failed.
    pub async fn set_agent_token(
        &self,
        name: AgentId,
        token_hash: [u8; 32],
        line: Line,
    ) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            if batch.exists("SELECT 1 FROM agent WHERE token_hash = ?1", [token_hash])? {
                return Ok(Err(ManageError::Conflict("an agent has this token already".to_owned())));
            }
            let query = "UPDATE agent SET token_hash = ?2 WHERE name = ?1";
            let changed = batch.sql().prepare_cached(query)?.execute(params![name.as_str(), token_hash])?;
            Ok(one(changed, || format!("agent `{name}`")))
        })
        .await
    }

    /// Disables an agent, or enables it again.
    ///
    /// # Errors
    /// There is no such agent; or the store failed.
    pub async fn set_agent_disabled(
        &self,
        name: AgentId,
        disabled: bool,
        line: Line,
    ) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let query = "UPDATE agent SET disabled = ?2 WHERE name = ?1";
            let changed = batch.sql().prepare_cached(query)?.execute(params![name.as_str(), disabled])?;
            Ok(one(changed, || format!("agent `{name}`")))
        })
        .await
    }

    /// Removes an agent. Its records and values stay.
    ///
    /// # Errors
    /// There is no such agent; or the store failed.
    pub async fn remove_agent(&self, name: AgentId, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let query = "DELETE FROM agent WHERE name = ?1";
            let changed = batch.sql().prepare_cached(query)?.execute([name.as_str()])?;
            Ok(one(changed, || format!("agent `{name}`")))
        })
        .await
    }

    /// All agents, by name.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        self.readers.with(|sql| {
            let query = "SELECT name, token_hash, uid, groups, disabled, added_ms FROM agent ORDER BY name";
            sql.prepare_cached(query)?.query_map([], agent_row)?.collect()
        })
    }

    /// The agent whose token has this hash. Whether it is disabled is for the caller to look at.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn agent_by_token(&self, token_hash: &[u8; 32]) -> Result<Option<AgentRow>, StoreError> {
        self.readers.with(|sql| {
            let query =
                "SELECT name, token_hash, uid, groups, disabled, added_ms FROM agent WHERE token_hash = ?1";
            sql.prepare_cached(query)?.query_row([token_hash], agent_row).optional()
        })
    }

    /// The agent that is this user.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn agent_by_uid(&self, uid: u32) -> Result<Option<AgentRow>, StoreError> {
        self.readers.with(|sql| {
            let query = "SELECT name, token_hash, uid, groups, disabled, added_ms FROM agent WHERE uid = ?1";
            sql.prepare_cached(query)?.query_row([uid], agent_row).optional()
        })
    }

    /// Accepts a definition. `reviewed` is what was accepted before, as the reviewer saw it; if it is something else by
    /// now, they have to look again.
    ///
    /// # Errors
    /// Somebody else changed the pin meanwhile; or the store failed.
    pub async fn accept_pin(
        &self,
        pin: Pin,
        reviewed: Option<Digest>,
        line: Line,
    ) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let tool = pin.tool.to_string();
            let query = "SELECT digest FROM pin WHERE tool = ?1";
            let present: Option<[u8; 32]> =
                batch.sql().prepare_cached(query)?.query_row([&tool], |row| row.get(0)).optional()?;
            if present != reviewed.map(|digest| *digest.as_bytes()) {
                return Ok(Err(ManageError::Conflict(format!(
                    "the accepted definition of `{tool}` was changed meanwhile; review it again"
                ))));
            }
            batch
                .sql()
                .prepare_cached(
                    "INSERT INTO pin (tool, server, definition, effects, digest, accepted_by, accepted_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tool) DO UPDATE SET \
                     definition = ?3, effects = ?4, digest = ?5, accepted_by = ?6, accepted_ms = ?7",
                )?
                .execute(params![
                    tool,
                    pin.tool.server().as_str(),
                    &pin.definition[..],
                    words(&pin.effects),
                    pin.digest.as_bytes(),
                    pin.accepted_by,
                    sql(pin.accepted_ms)
                ])?;
            Ok(Ok(()))
        })
        .await
    }

    /// Takes the acceptance of a tool back.
    ///
    /// # Errors
    /// The tool is not accepted; or the store failed.
    pub async fn remove_pin(&self, tool: ToolName, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let query = "DELETE FROM pin WHERE tool = ?1";
            let changed = batch.sql().prepare_cached(query)?.execute([tool.to_string()])?;
            Ok(one(changed, || format!("accepted tool `{tool}`")))
        })
        .await
    }

    /// All accepted definitions, by tool.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.readers.with(|sql| {
            let query =
                "SELECT tool, definition, effects, digest, accepted_by, accepted_ms FROM pin ORDER BY tool";
            sql.prepare_cached(query)?.query_map([], pin_row)?.collect()
        })
    }

    /// Enrols a person, or one more way for them to prove an answer.
    ///
    /// # Errors
    /// They are enrolled that way already; or the store failed.
    pub async fn add_person(&self, person: PersonRow, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let (name, method) = (person.name.as_str(), person.method.as_str());
            if batch.exists("SELECT 1 FROM person WHERE name = ?1 AND method = ?2", [name, method])? {
                return Ok(Err(ManageError::enrolled(name, method)));
            }
            batch
                .sql()
                .prepare_cached(
                    "INSERT INTO person (name, method, public_key, sealed, last_step, added_ms) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                )?
                .execute(params![name, method, &person.public_key[..], &person.sealed[..], sql(person.added_ms)])?;
            Ok(Ok(()))
        })
        .await
    }

    /// Replaces what a person proves an answer with, if it is still what the caller saw. Writes no record: it is how
    /// tries of one-time codes are counted, before their result is used.
    ///
    /// # Errors
    /// The store failed.
    pub async fn swap_person(&self, seen: PersonRow, next: Bytes) -> Result<bool, StoreError> {
        self.write_no_record(move |batch| {
            let query = "UPDATE person SET sealed = ?4 WHERE name = ?1 AND method = ?2 AND sealed = ?3";
            let swap = params![seen.name.as_str(), seen.method, &seen.sealed[..], &next[..]];
            let swapped = batch.sql().prepare_cached(query)?.execute(swap)? == 1;
            batch.changed |= swapped;
            Ok(swapped)
        })
        .await
    }

    /// Removes a person with all their ways to prove an answer. What they answered stays.
    ///
    /// # Errors
    /// There is no such person; or the store failed.
    pub async fn remove_person(&self, name: PersonName, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let query = "DELETE FROM person WHERE name = ?1";
            let changed = batch.sql().prepare_cached(query)?.execute([name.as_str()])?;
            Ok(one(changed.min(1), || format!("person `{name}`")))
        })
        .await
    }

    /// All people, by name and method.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn persons(&self) -> Result<Vec<PersonRow>, StoreError> {
        self.readers.with(|sql| {
            let query = "SELECT name, method, public_key, sealed, added_ms FROM person ORDER BY name, method";
            sql.prepare_cached(query)?.query_map([], person_row)?.collect()
        })
    }

    /// Notes which vault was written, and how often. Of two that were written at once the later one counts; `trusted` lets
    /// an older or another one count as well.
    ///
    /// # Errors
    /// Another vault was noted before; or the store failed.
    pub async fn note_vault(
        &self,
        noted: VaultRow,
        trusted: bool,
        line: Line,
    ) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let id = noted.id.as_slice();
            if !trusted && batch.exists("SELECT 1 FROM vault WHERE id <> ?1", [id])? {
                return Ok(Err(ManageError::Conflict("another vault was here before".to_owned())));
            }
            let query = if trusted {
                "INSERT INTO vault (one, id, generation) VALUES (1, ?1, ?2) ON CONFLICT (one) DO UPDATE SET \
                 id = ?1, generation = ?2"
            } else {
                "INSERT INTO vault (one, id, generation) VALUES (1, ?1, ?2) ON CONFLICT (one) DO UPDATE SET \
                 generation = max(generation, ?2)"
            };
            batch.sql().prepare_cached(query)?.execute(params![id, sql(noted.generation)])?;
            Ok(Ok(()))
        })
        .await
    }

    /// The vault that was noted last.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn vault(&self) -> Result<Option<VaultRow>, StoreError> {
        self.readers.with(|sql| {
            let query = "SELECT id, generation FROM vault";
            let row = |row: &Row<'_>| Ok(VaultRow { id: row.get(0)?, generation: unsql(row.get(1)?)? });
            sql.prepare_cached(query)?.query_row([], row).optional()
        })
    }

    /// Notes a lease of this process, as it is now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn note_lease(&self, lease: LeaseRow, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let LeaseRow { id, secret, provider, server, session, until_ms, handle, live, .. } = &lease;
            if *live {
                // One that was revoked meanwhile is not there any more.
                let query = "UPDATE lease SET until_ms = ?2, handle = ?3, live = 1 WHERE id = ?1";
                batch.sql().prepare_cached(query)?.execute(params![id, sql(*until_ms), handle])?;
                return Ok(Ok(()));
            }
            let query = "INSERT INTO lease \
                         (id, secret, provider, server, session, until_ms, handle, live, revoke, owner) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8)";
            let row = params![id, secret, provider, server, session, sql(*until_ms), handle, batch.owner];
            batch.sql().prepare_cached(query)?.execute(row)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Notes that a lease is to be revoked, for the gate that has it.
    ///
    /// # Errors
    /// There is none; or the store failed.
    pub async fn revoke_lease(&self, id: Vec<u8>, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            let query = "UPDATE lease SET revoke = 1 WHERE id = ?1";
            let changed = batch.sql().prepare_cached(query)?.execute([&id])?;
            Ok(one(changed, || "such lease".to_owned()))
        })
        .await
    }

    /// Forgets a lease that is good for nothing any more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn end_lease(&self, id: Vec<u8>, line: Line) -> Result<Position, ManageError> {
        self.manage(line, move |batch| {
            batch.sql().prepare_cached("DELETE FROM lease WHERE id = ?1")?.execute([&id])?;
            Ok(Ok(()))
        })
        .await
    }

    /// The leases of this process, and of those that are gone: they become its own.
    ///
    /// # Errors
    /// The store failed.
    pub async fn take_over_leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let folder = self.folder().to_owned();
        self.write_no_record(move |batch| {
            batch.take_over("lease", "1", &folder)?;
            let query = format!("{LEASES} WHERE owner = ?1 ORDER BY until_ms, id");
            let mut leases = batch.sql().prepare_cached(&query)?;
            leases.query_map([batch.owner], |row| Ok(lease_row(row)?.0))?.collect()
        })
        .await
    }

    /// The leases that may be good for something, the one that ends first before the others.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let rows: Vec<(LeaseRow, i64)> = self.readers.with(|sql| {
            let query = format!("{LEASES} ORDER BY until_ms, id");
            sql.prepare_cached(&query)?.query_map([], lease_row)?.collect()
        })?;
        let held = |owner| owner::is_alive(self.folder(), owner);
        Ok(rows.into_iter().map(|(row, owner)| LeaseRow { held: held(owner), ..row }).collect())
    }

    /// The leases that a person wants revoked, by their numbers.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn unwanted_leases(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.readers.with(|sql| {
            sql.prepare_cached("SELECT id FROM lease WHERE revoke = 1")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Makes a change and sequences its record, or neither.
    async fn manage<F>(&self, line: Line, mut change: F) -> Result<Position, ManageError>
    where
        F: FnMut(&mut Batch<'_>) -> rusqlite::Result<Managed<()>> + Send + 'static,
    {
        self.write(line, None, Kind::Other, move |batch, record| {
            Ok(match change(batch)? {
                Ok(()) => {
                    batch.changed = true;
                    Ok(batch.sequence(record)?)
                }
                Err(refused) => Err(refused),
            })
        })
        .await?
    }
}

fn one(changed: usize, what: impl FnOnce() -> String) -> Managed<()> {
    if changed == 1 { Ok(()) } else { Err(ManageError::Missing(what())) }
}

fn agent_row(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        name: parsed(row, 0)?,
        token_hash: row.get(1)?,
        uid: row.get(2)?,
        groups: parsed_words(row, 3)?,
        disabled: row.get(4)?,
        added_ms: unsql(row.get(5)?)?,
    })
}

fn pin_row(row: &Row<'_>) -> rusqlite::Result<Pin> {
    Ok(Pin {
        tool: parsed(row, 0)?,
        definition: bytes_of(row, 1)?,
        effects: parsed_words(row, 2)?,
        digest: Digest::from_bytes(row.get(3)?),
        accepted_by: row.get(4)?,
        accepted_ms: unsql(row.get(5)?)?,
    })
}

const LEASES: &str =
    "SELECT id, secret, provider, server, session, until_ms, handle, live, revoke, owner FROM lease";

/// A lease, and the process that has it.
fn lease_row(row: &Row<'_>) -> rusqlite::Result<(LeaseRow, i64)> {
    let lease = LeaseRow {
        id: row.get(0)?,
        secret: row.get(1)?,
        provider: row.get(2)?,
        server: row.get(3)?,
        session: row.get(4)?,
        until_ms: unsql(row.get(5)?)?,
        handle: row.get(6)?,
        live: row.get(7)?,
        revoke: row.get(8)?,
        held: true,
    };
    Ok((lease, row.get(9)?))
}

fn person_row(row: &Row<'_>) -> rusqlite::Result<PersonRow> {
    Ok(PersonRow {
        name: parsed(row, 0)?,
        method: row.get(1)?,
        public_key: bytes_of(row, 2)?,
        sealed: bytes_of(row, 3)?,
        added_ms: unsql(row.get(4)?)?,
    })
}

/// Words with a space between them. None of our names has a space.
fn words<T: Display>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}

/// A column that holds a name.
pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    parse(row.get_ref(column)?.as_str()?, column)
}

fn parsed_words<T: FromStr, L: FromIterator<T>>(row: &Row<'_>, column: usize) -> rusqlite::Result<L>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.split_whitespace().map(|word| parse(word, column)).collect()
}

fn parse<T: FromStr>(text: &str, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
