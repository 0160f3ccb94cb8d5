"""The tables of a gallery. docs/formats/gallery-v1.md says what each column means."""

FORMAT = "patchatlas.gallery"
VERSION = 1

APPLICATION_ID = 0x70614731
"""`paG1`, for programs that tell SQLite files apart by it (sqlite.org/fileformat2.html, 1.3.19)."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE stamps (digest TEXT PRIMARY KEY, facts TEXT NOT NULL, dim INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stamp TEXT NOT NULL REFERENCES stamps,
    file TEXT NOT NULL UNIQUE,
    rows INTEGER NOT NULL
);
CREATE TABLE episodes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    stamp TEXT NOT NULL REFERENCES stamps
);
CREATE TABLE known_pairs (
    episode INTEGER NOT NULL REFERENCES episodes ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('same', 'different', 'rival')),
    cosine REAL NOT NULL
);
CREATE INDEX known_pairs_of_episode ON known_pairs (episode);
CREATE TABLE identities (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
CREATE TABLE sightings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    episode INTEGER NOT NULL REFERENCES episodes ON DELETE CASCADE,
    local INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('known', 'new', 'unknown')),
    decided INTEGER REFERENCES identities,
    candidate INTEGER REFERENCES identities,
    likeness REAL,
    chance REAL,
    rival INTEGER REFERENCES identities,
    margin REAL,
    why TEXT NOT NULL,
    UNIQUE (episode, local)
);
CREATE TABLE tracklets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sighting INTEGER NOT NULL REFERENCES sightings ON DELETE CASCADE,
    track INTEGER NOT NULL,
    label TEXT NOT NULL,
    seen_s REAL NOT NULL,
    segment INTEGER NOT NULL REFERENCES segments,
    row INTEGER NOT NULL,
    identity INTEGER REFERENCES identities
);
CREATE INDEX tracklets_of_identity ON tracklets (identity);
CREATE INDEX tracklets_by_row ON tracklets (segment, row);
CREATE INDEX tracklets_of_sighting ON tracklets (sighting);
CREATE TABLE observations (
    tracklet INTEGER NOT NULL REFERENCES tracklets ON DELETE CASCADE,
    frame INTEGER NOT NULL,
    time_s REAL NOT NULL,
    x0 REAL NOT NULL, y0 REAL NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL,
    score REAL NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (tracklet, frame)
) WITHOUT ROWID;
CREATE TABLE looks (identity INTEGER PRIMARY KEY REFERENCES identities, made_of TEXT NOT NULL);
CREATE TABLE prototypes (
    identity INTEGER NOT NULL REFERENCES identities,
    look INTEGER NOT NULL,
    place INTEGER NOT NULL,
    weight REAL NOT NULL,
    segment INTEGER NOT NULL REFERENCES segments,
    row INTEGER NOT NULL,
    tracklet INTEGER REFERENCES tracklets ON DELETE CASCADE,
    PRIMARY KEY (identity, look, place)
) WITHOUT ROWID;
CREATE INDEX prototypes_by_row ON prototypes (segment, row);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('link', 'merge', 'split', 'assign', 'rename', 'undo')),
    content TEXT NOT NULL,
    undone_by INTEGER REFERENCES events,
    blocked TEXT
);
CREATE TABLE event_tracklets (
    event INTEGER NOT NULL REFERENCES events,
    tracklet INTEGER NOT NULL REFERENCES tracklets,
    PRIMARY KEY (event, tracklet)
) WITHOUT ROWID;
CREATE VIEW spans AS
    SELECT tracklets.identity AS identity, episodes.name AS episode, tracklets.track AS track,
        min(frame) AS first_frame, max(frame) AS last_frame, min(time_s) AS first_s, max(time_s) AS last_s,
        count(*) AS observations
    FROM tracklets
    JOIN sightings ON sightings.id = tracklets.sighting
    JOIN episodes ON episodes.id = sightings.episode
    JOIN observations ON observations.tracklet = tracklets.id
    WHERE tracklets.identity IS NOT NULL
    GROUP BY tracklets.id;
"""
