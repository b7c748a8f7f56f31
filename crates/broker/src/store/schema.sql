-- The state of the gate, version 2.
--
-- Written so that PostgreSQL can serve it with two words exchanged: what is INTEGER here (64 bits in SQLite) is BIGINT
-- there, and what is BLOB here is BYTEA there; WITHOUT ROWID has no meaning there and is left out.
-- Times are milliseconds since 1970. Digests, call numbers and keys are raw bytes.

-- The log: one row for each transaction that wrote records. `records` are framed as in a tlog-tiles entry bundle: two
-- bytes of length, then the record. Never changed, never deleted. `at_ms` never goes back. The next record follows the last row.
CREATE TABLE batch (
    first_index INTEGER PRIMARY KEY,
    count       INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    records     BLOB    NOT NULL
);

-- Keys of subjects, wrapped by the root key. Deleting a row forgets all that was sealed under it.
CREATE TABLE subject_key (
    id      INTEGER PRIMARY KEY,
    subject TEXT    NOT NULL,
    made_ms INTEGER NOT NULL,
    wrapped BLOB    NOT NULL
);

-- The values that records commit to, sealed under a data key for each record, which its seed and the subject's key make:
-- one row for what a transaction sealed under one subject's key, or a few if it was much. Entries are framed as `sealed.rs` says.
CREATE TABLE blob (
    first_index INTEGER PRIMARY KEY,
    subject_key INTEGER NOT NULL,
    entries     BLOB    NOT NULL
);

-- Calls whose intent is on the log. While `outcome` is NULL the call is open, and `owner` is the process that runs it.
-- After that the row stands for an answer that was not delivered, for a client that asks for the same again: it is the
-- values of the outcome, sealed under `subject_key`, and is kept until `until_ms`.
CREATE TABLE call (
    id          BLOB    PRIMARY KEY,
    owner       INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    intent      INTEGER NOT NULL,
    outcome     INTEGER,
    subject_key INTEGER,
    until_ms    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX call_kept ON call (digest) WHERE outcome IS NOT NULL;

-- Questions to people. `statement` is sealed, since it shows arguments; NULL once it was erased.
CREATE TABLE question (
    number      TEXT    PRIMARY KEY,
    name        TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    policy      BLOB    NOT NULL,
    asked_ms    INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('open', 'approved', 'denied', 'expired', 'used')),
    subject_key INTEGER NOT NULL,
    seed        BLOB    NOT NULL,
    statement   BLOB
);
CREATE INDEX question_digest ON question (digest);
CREATE INDEX question_asked ON question (asked_ms);

-- What people said: one answer per person and question.
CREATE TABLE question_answer (
    question TEXT    NOT NULL REFERENCES question (number),
    person   TEXT    NOT NULL,
    yes      INTEGER NOT NULL CHECK (yes IN (0, 1)),
    method   TEXT    NOT NULL,
    evidence BLOB    NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (question, person)
);

-- Agents. A token is kept as its hash only. `groups` are names with a space between them.
CREATE TABLE agent (
    name       TEXT    PRIMARY KEY,
    token_hash BLOB    UNIQUE,
    uid        INTEGER UNIQUE,
    groups     TEXT    NOT NULL,
    disabled   INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    added_ms   INTEGER NOT NULL
);

-- Accepted definitions of tools. `effects` are words with a space between them.
CREATE TABLE pin (
    tool        TEXT    PRIMARY KEY,
    server      TEXT    NOT NULL,
    definition  BLOB    NOT NULL,
    effects     TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    accepted_by TEXT    NOT NULL,
    accepted_ms INTEGER NOT NULL
);

-- People and how each proves an answer. `last_step` is the last one-time code that was used.
CREATE TABLE person (
    name       TEXT    NOT NULL,
    method     TEXT    NOT NULL,
    public_key BLOB    NOT NULL,
    sealed     BLOB    NOT NULL,
    last_step  INTEGER NOT NULL,
    added_ms   INTEGER NOT NULL,
    PRIMARY KEY (name, method)
);
