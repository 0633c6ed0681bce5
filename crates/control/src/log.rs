//! The daemon's log: lines of text, or JSON with one object per line.
//!
//! Owned by the control plane, on the app thread. A line goes to standard error if the print level admits it, and to the log
//! file, if there is one, if the log level does. Lines for information and debugging are written only for parts
//! whose flag is set. Lines are written at once; a line is lost if standard error accepts nothing for a moment. Not
//! promised: the form of reports of the runtime itself (a panic, a call that holds a reactor, a dump), which are
//! text on standard error.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spindle_rpc::to_json;

/// How long standard error has to accept a line.
const PATIENCE: Duration = Duration::from_millis(100);

/// Stands for all flags.
const ALL: &str = "all";

/// SPDK's flags for the parts that exist here.
const FLAGS: [&str; 13] = [
    "aio",
    "app_rpc",
    "bdev",
    "bdev_malloc",
    "bdev_null",
    "blob",
    "log_rpc",
    "lvol",
    "nbd",
    "notify_rpc",
    "rpc",
    "thread",
    "vbdev_lvol",
];

/// How much a line matters, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as intended.
    Warning,
    /// A rare event: the start, the end.
    Notice,
    /// What parts do, if their flag is set.
    Info,
    /// The same in detail.
    Debug,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogForm {
    /// Text: the time, the level, the part and the message.
    #[default]
    Human,
    /// An object with the members `time`, `level`, `part` and `message`.
    Json,
}

/// Where a log goes, and its first settings.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// How lines are written.
    pub form: LogForm,
    /// A file to which lines are appended.
    pub file: Option<PathBuf>,
    /// Flags that are set, "all" for all of them.
    pub flags: Vec<String>,
    /// Standard error gets warnings and errors only.
    pub quiet: bool,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its file cannot be opened.
    #[error("the log {} cannot be opened: {source}; name a file that may be written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A flag that does not exist.
    #[error("there is no log flag '{0}'; there are all, {list}", list = FLAGS.join(", "))]
    Flag(String),
}

/// The log. A handle.
#[derive(Clone)]
pub struct Log(Rc<Inner>);

struct Inner {
    form: LogForm,
    path: Option<PathBuf>,
    file: RefCell<Option<File>>,
    level: Cell<Level>,
    print_level: Cell<Level>,
    flags: RefCell<BTreeMap<&'static str, bool>>,
    timestamps: Cell<bool>,
}

impl Default for Inner {
    /// Text on standard error; levels as in SPDK.
    fn default() -> Inner {
        Inner {
            form: LogForm::Human,
            path: None,
            file: RefCell::default(),
            level: Cell::new(Level::Notice),
            print_level: Cell::new(Level::Info),
            flags: RefCell::new(FLAGS.iter().map(|flag| (*flag, false)).collect()),
            timestamps: Cell::new(true),
        }
    }
}

impl Default for Log {
    /// For a program with its own log: warnings and errors as text on standard error.
    fn default() -> Log {
        let log = Log(Rc::default());
        log.set_print_level(Level::Warning);
        log
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("form", &self.0.form).field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the file, if the options name one.
    ///
    /// # Errors
    /// [`LogError`] names the file or the flag.
    pub fn open(options: LogOptions) -> Result<Log, LogError> {
        let file = options.file.as_deref().map(append).transpose()?;
        let log = Log(Rc::new(Inner {
            form: options.form,
            path: options.file,
            file: RefCell::new(file),
            ..Inner::default()
        }));
        if options.quiet {
            log.set_print_level(Level::Warning);
        }
        match options.flags.into_iter().find(|flag| !log.set_flag(flag, true)) {
            Some(unknown) => Err(LogError::Flag(unknown)),
            None => Ok(log),
        }
    }

    /// True if there is a file, which can be reopened.
    pub fn has_file(&self) -> bool {
        self.0.path.is_some()
    }

    /// Reopens the file, as after it was renamed. If that fails, the old one stays.
    pub fn reopen(&self) {
        let Some(path) = &self.0.path else { return };
        match append(path) {
            Ok(file) => {
                self.0.file.replace(Some(file));
                self.notice("log", "the log was reopened");
            }
            Err(error) => self.say(Level::Error, "log", &format!("{error}; the old file is kept")),
        }
    }

    /// Logs a rare event.
    pub fn notice(&self, part: &str, message: &str) {
        self.say(Level::Notice, part, message);
    }

    /// Logs something that is not as intended.
    pub fn warning(&self, part: &str, message: &str) {
        self.say(Level::Warning, part, message);
    }

    /// True if lines of that level and part are written anywhere.
    pub fn says(&self, level: Level, part: &str) -> bool {
        let flagged = level <= Level::Notice || self.0.flags.borrow().get(part) == Some(&true);
        flagged && (level <= self.0.print_level.get() || (self.has_file() && level <= self.0.level.get()))
    }

    /// Logs a line for a part.
    pub fn say(&self, level: Level, part: &str, message: &str) {
        if !self.says(level, part) {
            return;
        }
        let line = self.line(level, part, message);
        if level <= self.0.print_level.get() {
            spindle_engine::report(&line, PATIENCE);
        }
        if let Some(file) = &*self.0.file.borrow()
            && level <= self.0.level.get()
        {
            spindle_engine::report_to(file, &line, PATIENCE);
        }
    }

    fn line(&self, level: Level, part: &str, message: &str) -> String {
        let time = self.0.timestamps.get().then(|| date(spindle_engine::wall_clock()));
        match self.0.form {
            LogForm::Human => {
                let time = time.map_or_else(String::new, |time| format!("{time} "));
                let level = format!("{level:?}").to_lowercase();
                format!("{time}{level} {part}: {}\n", one_line(message))
            }
            // A line is always text.
            LogForm::Json => to_json(&Line { time, level, part, message }).unwrap_or_default() + "\n",
        }
    }

    /// The lowest level that the file gets.
    pub fn level(&self) -> Level {
        self.0.level.get()
    }

    /// Sets it.
    pub fn set_level(&self, level: Level) {
        self.0.level.set(level);
    }

    /// The lowest level that standard error gets.
    pub fn print_level(&self) -> Level {
        self.0.print_level.get()
    }

    /// Sets it.
    pub fn set_print_level(&self, level: Level) {
        self.0.print_level.set(level);
    }

    /// The flags.
    pub fn flags(&self) -> BTreeMap<&'static str, bool> {
        self.0.flags.borrow().clone()
    }

    /// Sets a flag, or clears it; false if there is none of that name. "all" is all of them.
    pub fn set_flag(&self, name: &str, to: bool) -> bool {
        let named = |flag: &str| name.eq_ignore_ascii_case(ALL) || flag.eq_ignore_ascii_case(name);
        let mut flags = self.0.flags.borrow_mut();
        let mut known = false;
        for (_, set) in flags.iter_mut().filter(|(flag, _)| named(flag)) {
            (*set, known) = (to, true);
        }
        known
    }

    /// Whether lines begin with the time.
    pub fn set_timestamps(&self, yes: bool) {
        self.0.timestamps.set(yes);
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    level: Level,
    part: &'a str,
    message: &'a str,
}

/// Opens a file for appending.
fn append(path: &Path) -> Result<File, LogError> {
    let opened = File::options().append(true).create(true).mode(0o640).open(path);
    opened.map_err(|source| LogError::File { path: path.to_owned(), source })
}

/// A message on one line.
fn one_line(message: &str) -> String {
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().collect::<String>(),
        false => character.to_string(),
    };
    message.chars().map(escaped).collect()
}

/// A time since 1970 as `2026-11-30T11:26:31.123Z`.
fn date(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years of 365 days from a first of March, which leap days end: in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_a_date_of_the_calendar() {
        for (seconds, said) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_it_says() {
        let log = Log::open(LogOptions { form: LogForm::Json, ..LogOptions::default() }).unwrap();
        log.set_timestamps(false);
        let line = log.line(Level::Notice, "app", "a \"b\"\nc");
        assert_eq!(line, "{\"level\":\"NOTICE\",\"part\":\"app\",\"message\":\"a \\\"b\\\"\\nc\"}\n");
        let log = Log::default();
        log.set_timestamps(false);
        assert_eq!(log.line(Level::Warning, "app", "a\nb"), "warning app: a\\nb\n");
    }

    #[test]
    fn information_is_said_of_parts_whose_flag_is_set() {
        let log = Log::open(LogOptions::default()).unwrap();
        assert!(log.says(Level::Notice, "rpc") && !log.says(Level::Info, "rpc"));
        assert!(log.set_flag("RPC", true) && log.says(Level::Info, "rpc") && !log.says(Level::Info, "nbd"));
        assert!(!log.says(Level::Debug, "rpc") && !log.set_flag("nope", true));
        log.set_print_level(Level::Error);
        assert!(!log.says(Level::Notice, "rpc"));
    }

    #[test]
    fn a_log_that_was_renamed_is_opened_anew_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("old"));
        let log = Log::open(LogOptions { file: Some(path.clone()), ..LogOptions::default() }).unwrap();
        log.notice("app", "one");
        std::fs::rename(&path, &old).unwrap();
        log.notice("app", "two");
        log.reopen();
        log.notice("app", "three");
        let said = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert!(said(&old).contains("one") && said(&old).contains("two") && !said(&old).contains("three"));
        assert!(said(&path).contains("three") && !said(&path).contains("two"));
        let error = Log::open(LogOptions { file: Some("/nope/log".into()), ..LogOptions::default() });
        assert!(error.unwrap_err().to_string().starts_with("the log /nope/log cannot be opened"));
    }
}
