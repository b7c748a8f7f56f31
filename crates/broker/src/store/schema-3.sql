-- From version 2 to 3: the vault that was written last, so that an older one in its place is noticed. One row at most.
CREATE TABLE vault (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         BLOB    NOT NULL,
    generation INTEGER NOT NULL
);
