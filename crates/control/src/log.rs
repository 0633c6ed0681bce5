//! The daemon's log: lines of text, or JSON with one object per line.
//!
//! Shared by the control plane and, as its [`Reporter`], by the runtime: any OS thread may log a line. A line goes to standard
//! error if the print level admits it, and to the log file, if there is one, if the log level does. Lines for information and
//! debugging are written only for parts whose flag is set. Lines are written at once; while standard error or the file accepts
//! nothing, lines are lost and counted, and the first one that is accepted follows their number. A reactor that reports does
//! not wait, the control plane once for a moment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use spindle_reactor::{ReportLevel, Reporter, Stall};
use spindle_rpc::to_json;

use crate::outlet::Outlet;
use crate::pattern::Pattern;

/// How long standard error and the file have to accept a line of the control plane.
const PATIENCE: Duration = Duration::from_millis(100);

/// The shortest hold of a core that is a warning: clients notice it.
const NOTICED: Duration = Duration::from_secs(1);

/// Stands for all flags.
const ALL: &str = "all";

/// SPDK's flags for the parts that exist here; one bit of [`Inner::flags`] each.
const FLAGS: [&str; 21] = [
    "aio",
    "app_rpc",
    "bdev",
    "bdev_malloc",
    "bdev_null",
    "blob",
    "keyring",
    "log_rpc",
    "lvol",
    "lvol_rpc",
    "nbd",
    "notify_rpc",
    "reactor",
    "rpc",
    "thread",
    "uring",
    "vbdev_delay",
    "vbdev_gpt",
    "vbdev_lvol",
    "vbdev_passthru",
    "vbdev_split",
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

impl Level {
    /// All, at the places of their numbers.
    const ALL: [Level; 5] = [Level::Error, Level::Warning, Level::Notice, Level::Info, Level::Debug];
}

/// A level that any thread reads and sets.
struct Limit(AtomicU8);

impl Limit {
    fn new(level: Level) -> Limit {
        Limit(AtomicU8::new(level as u8))
    }

    fn get(&self) -> Level {
        Level::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
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
    /// Its file is a FIFO, to which nothing can be written yet.
    #[error(
        "the log {} cannot be opened: it is a FIFO that nothing reads; start its reader first, or name a file",
        path.display()
    )]
    NoReader {
        /// The FIFO.
        path: PathBuf,
    },
    /// A flag that does not exist.
    #[error("there is no log flag '{0}'; there are all, {list}", list = FLAGS.join(", "))]
    Flag(String),
}

/// The log. A handle.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    form: LogForm,
    stderr: Outlet,
    path: Option<PathBuf>,
    file: Mutex<Option<Arc<LogFile>>>,
    level: Limit,
    print_level: Limit,
    flags: AtomicU64,
    timestamps: AtomicBool,
}

/// The log file while it is open.
struct LogFile {
    file: File,
    outlet: Outlet,
}

impl Default for Inner {
    /// Text on standard error; levels as in SPDK.
    fn default() -> Inner {
        Inner {
            form: LogForm::Human,
            stderr: Outlet::default(),
            path: None,
            file: Mutex::default(),
            level: Limit::new(Level::Notice),
            print_level: Limit::new(Level::Info),
            flags: AtomicU64::new(0),
            timestamps: AtomicBool::new(true),
        }
    }
}

impl Default for Log {
    /// For a program with its own log: warnings and errors as text on standard error.
    fn default() -> Log {
        let log = Log(Arc::default());
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
        let file = file.map(|file| Arc::new(LogFile { file, outlet: Outlet::default() }));
        let log = Log(Arc::new(Inner {
            form: options.form,
            path: options.file,
            file: Mutex::new(file),
            ..Inner::default()
        }));
        if log.has_file() {
            // What flags ask for comes with the level of information.
            log.set_level(Level::Info);
        }
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
                let outlet = Outlet::after(self.file().map_or(0, |old| old.outlet.lost()));
                *self.locked_file() = Some(Arc::new(LogFile { file, outlet }));
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
        let flagged = || {
            let flag = FLAGS.iter().position(|flag| *flag == part);
            flag.is_some_and(|flag| self.0.flags.load(Ordering::Relaxed) >> flag & 1 == 1)
        };
        (level <= Level::Notice || flagged())
            && (level <= self.0.print_level.get() || (self.has_file() && level <= self.0.level.get()))
    }

    /// Logs a line for a part.
    pub fn say(&self, level: Level, part: &str, message: &str) {
        self.say_within(PATIENCE, level, part, message);
    }

    fn say_within(&self, patience: Duration, level: Level, part: &str, message: &str) {
        if !self.says(level, part) {
            return;
        }
        let line = self.line(level, part, message);
        if level <= self.0.print_level.get() {
            self.print(&line, patience);
        }
        if level <= self.0.level.get() {
            self.write(&line, patience);
        }
    }

    /// Writes a text to standard error.
    fn print(&self, text: &str, patience: Duration) {
        self.0.stderr.say(&io::stderr(), text, patience, |lost| self.lost(lost));
    }

    /// Writes a text to the file, if there is one.
    fn write(&self, text: &str, patience: Duration) {
        if let Some(log) = self.file() {
            log.outlet.say(&log.file, text, patience, |lost| self.lost(lost));
        }
    }

    /// The line that stands for others.
    fn lost(&self, lines: u64) -> String {
        let lines = if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
        self.line(Level::Warning, "log", &format!("{lines} lost: the log accepted nothing for a while"))
    }

    /// Writes a dump at any level, since it was requested: as text unchanged, in JSON as one line of level NOTICE.
    pub fn dump(&self, text: &str) {
        let said = match self.0.form {
            LogForm::Human => text.to_owned(),
            LogForm::Json => self.line(Level::Notice, "runtime", text),
        };
        self.print(&said, PATIENCE);
        self.write(&said, PATIENCE);
    }

    fn file(&self) -> Option<Arc<LogFile>> {
        self.locked_file().clone()
    }

    fn locked_file(&self) -> MutexGuard<'_, Option<Arc<LogFile>>> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, level: Level, part: &str, message: &str) -> String {
        let time = self.0.timestamps.load(Ordering::Relaxed).then(|| date(spindle_engine::wall_clock()));
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
        let set = self.0.flags.load(Ordering::Relaxed);
        FLAGS.iter().enumerate().map(|(flag, name)| (*name, set >> flag & 1 == 1)).collect()
    }

    /// Sets the flags that fit a pattern of fnmatch(3) in any case, or clears them; false if there are none. "all" is all
    /// of them.
    pub fn set_flag(&self, name: &str, to: bool) -> bool {
        let pattern = Pattern::new(name);
        let named = |flag: &str| name.eq_ignore_ascii_case(ALL) || pattern.fits(flag);
        let meant = FLAGS.iter().enumerate().filter(|(_, flag)| named(flag));
        let meant = meant.fold(0_u64, |meant, (flag, _)| meant | 1 << flag);
        match to {
            true => self.0.flags.fetch_or(meant, Ordering::Relaxed),
            false => self.0.flags.fetch_and(!meant, Ordering::Relaxed),
        };
        meant != 0
    }

    /// Whether lines begin with the time.
    pub fn set_timestamps(&self, yes: bool) {
        self.0.timestamps.store(yes, Ordering::Relaxed);
    }
}

impl Reporter for Log {
    fn wants(&self, level: ReportLevel, part: &str) -> bool {
        self.says(level.into(), part)
    }

    fn report(&self, level: ReportLevel, part: &'static str, text: &str) {
        self.say_within(Duration::ZERO, level.into(), part, text);
    }

    fn dump(&self, text: &str) {
        Log::dump(self, text);
    }

    /// A short hold is information, shown with the flag; one that is long enough for clients to notice is a warning.
    fn stall(&self, stall: &Stall) {
        let (level, part) = match stall.held < NOTICED {
            true if !stall.is_milestone() => return,
            true => (Level::Info, "reactor"),
            false => (Level::Warning, "runtime"),
        };
        if self.says(level, part) {
            self.say_within(Duration::ZERO, level, part, &held_up(stall));
        }
    }
}

/// A hold in words for an operator.
fn held_up(stall: &Stall) -> String {
    let thread = stall.thread.1.as_deref().unwrap_or("a thread that has ended");
    let times = if stall.times > 1 { format!("; {} times so far", stall.times) } else { String::new() };
    format!(
        "all work on core {} was held up for {} ms by {thread} ({}{times})",
        stall.core,
        stall.held.as_millis(),
        stall.call.trim_end_matches(',')
    )
}

impl From<ReportLevel> for Level {
    fn from(level: ReportLevel) -> Level {
        match level {
            ReportLevel::Error => Level::Error,
            ReportLevel::Warning => Level::Warning,
            _ => Level::Info,
        }
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
    let is_fifo = || path.metadata().is_ok_and(|file| file.file_type().is_fifo());
    spindle_engine::open_log(path).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::NXIO) if is_fifo() => LogError::NoReader { path: path.to_owned() },
        _ => LogError::File { path: path.to_owned(), source },
    })
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
    fn reports_of_a_runtime_are_lines_of_the_log_and_a_dump_is_said_at_any_level() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let options = LogOptions { form: LogForm::Json, file: Some(path.clone()), ..LogOptions::default() };
        let log = Log::open(options).unwrap();
        log.set_print_level(Level::Error);
        log.set_level(Level::Error);
        let reporter: &dyn Reporter = &log;
        assert!(reporter.wants(ReportLevel::Error, "runtime"));
        assert!(
            !reporter.wants(ReportLevel::Warning, "runtime") && !reporter.wants(ReportLevel::Info, "bdev")
        );
        log.set_flag("bdev", true);
        assert!(!reporter.wants(ReportLevel::Info, "bdev"), "the levels are below it");
        log.set_level(Level::Debug);
        assert!(reporter.wants(ReportLevel::Info, "bdev") && !reporter.wants(ReportLevel::Info, "nbd"));
        reporter.report(ReportLevel::Info, "bdev", "b0 is there");
        log.set_level(Level::Error);
        reporter.dump("first\nsecond\n");
        let said = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].contains(r#""level":"INFO","part":"bdev","message":"b0 is there""#), "{said}");
        assert!(lines[1].contains(r#""message":"first\nsecond\n""#), "{said}");
    }

    #[test]
    fn a_file_gets_what_flags_ask_for_and_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("log"));
        let log = Log::open(LogOptions { file, flags: vec!["rpc".into()], ..LogOptions::default() }).unwrap();
        log.say(Level::Info, "rpc", "by an option");
        log.say(Level::Info, "bdev", "without a flag");
        log.set_flag("bdev", true);
        log.say(Level::Info, "bdev", "by a call");
        log.say(Level::Debug, "bdev", "in detail");
        let said = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(said.contains("by an option") && said.contains("by a call"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }

    #[test]
    fn a_held_core_is_a_warning_when_clients_notice_it_and_information_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let options = LogOptions { file: Some(path.clone()), ..LogOptions::default() };
        let log = Log::open(options).unwrap();
        let stall = |milliseconds, times| Stall {
            reactor: 1,
            reactor_name: "reactor_1".into(),
            core: 3,
            thread: (7, Some("nbd_1".into())),
            call: "the task spawned at crates/nbd/src/server/shared.rs:112:53".into(),
            held: Duration::from_millis(milliseconds),
            times,
        };
        let say = |stalls: &[(u64, u64)]| {
            std::fs::write(&path, "").unwrap();
            stalls.iter().for_each(|(held, times)| log.stall(&stall(*held, *times)));
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(say(&[(20, 1), (999, 2)]), "");
        // Each time, also if too many others are kept.
        let said = say(&[(1000, 3), (10_000, 4), (1500, 0)]);
        assert_eq!(said.matches("warning runtime: ").count(), 3, "{said}");
        let words = "all work on core 3 was held up for 1000 ms by nbd_1 (the task spawned at crates/nbd";
        assert!(said.contains(words) && !said.contains("yield_now"), "{said}");
        log.set_flag("reactor", true);
        let said = say(&[(20, 1), (20, 2), (30, 10), (40, 0)]);
        assert_eq!(said.matches("info reactor: ").count(), 2, "{said}");
        assert!(said.contains("held up for 20 ms by nbd_1") && said.contains("; 10 times so far)"), "{said}");
    }

    #[test]
    fn a_pattern_names_all_flags_that_it_fits() {
        let log = Log::open(LogOptions::default()).unwrap();
        assert!(log.set_flag("*", true) && log.flags().values().all(|set| *set));
        assert!(
            log.set_flag("[!R]*", false)
                && log.flags().iter().all(|(flag, set)| *set == flag.starts_with('r'))
        );
        assert!(!log.set_flag("[[:digit:]]*", true) && !log.set_flag("", true));
    }

    #[test]
    fn a_fifo_is_a_log_when_something_reads_it_and_has_the_number_of_lines_that_were_lost_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let open = || Log::open(LogOptions { file: Some(path.clone()), ..LogOptions::default() });
        let refused = open().unwrap_err().to_string();
        assert!(refused.contains("FIFO that nothing reads; start its reader first"), "{refused}");
        // An end for both, which does not wait for the other one.
        let mut reader = File::options().read(true).write(true).open(&path).unwrap();
        let log = open().unwrap();
        log.set_print_level(Level::Error);
        let mut bytes = vec![0; 1 << 20];
        let mut read = || {
            let count = std::io::Read::read(&mut reader, &mut bytes).unwrap();
            String::from_utf8(bytes[..count].to_owned()).unwrap()
        };
        let filling = "x".repeat(1 << 20);
        log.say_within(Duration::ZERO, Level::Notice, "app", &filling);
        log.say_within(Duration::ZERO, Level::Notice, "app", "dropped");
        log.say_within(Duration::ZERO, Level::Notice, "app", "dropped too");
        let mut said = String::new();
        while !said.ends_with(
            "the end
",
        ) {
            said += &read();
            log.say_within(Duration::ZERO, Level::Notice, "app", "the end");
        }
        let after = said.split_once(&filling).unwrap().1;
        assert!(!said.contains("dropped") && after.contains("warning log: "), "{after}");
        assert!(after.contains(" lines lost: the log accepted nothing for a while\n"), "{after}");
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
