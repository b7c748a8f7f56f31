-- From version 3 to 4: credentials that were minted and are not known to be good for nothing. A row is there before the provider is
-- asked, and until it has revoked the credential or its time is over. `handle` is what it is revoked with, sealed by the vault.
-- `owner` is the process whose credential proxy has it.
CREATE TABLE lease (
    id       BLOB    PRIMARY KEY,
    secret   TEXT    NOT NULL,
    provider TEXT    NOT NULL,
    server   TEXT    NOT NULL,
    session  TEXT    NOT NULL,
    until_ms INTEGER NOT NULL,
    handle   BLOB    NOT NULL,
    live     INTEGER NOT NULL CHECK (live IN (0, 1)),
    revoke   INTEGER NOT NULL CHECK (revoke IN (0, 1)),
    owner    INTEGER NOT NULL
) WITHOUT ROWID;
