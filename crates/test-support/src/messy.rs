//! A messy CSV of creators, with every defect that files from strangers have, and the counts that an import must come to.
//!
//! The file is written row by row, so that it can be as large as the disk. Addresses are on reserved domains (RFC 2606).

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// The columns, in the names of a usual export.
const HEADER: &str = "Platform,User Name,Full Name,E-mail,Profile link,Followers,Biography,is_verified,Location";

/// More than any field may have.
const HUGE_BYTES: usize = 10 * 1024 * 1024;

/// What an import of the file must come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Rows, without the header.
    pub rows: u64,
    /// Rows that become leads.
    pub accepted: u64,
    /// Rows about a creator who stands further up.
    pub duplicates: u64,
    /// Rows that are refused, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

impl Expected {
    /// All rows that are refused.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// What is wrong with a row, in a thousandth of the rows each number of them.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Good,
    Quoted,
    Hostile,
    Duplicate,
    NoSource,
    NoUsername,
    NoContact,
    BadEmail,
    BadNumber,
    BadUtf8,
    WrongFields,
    UnclosedQuote,
    LargeField,
    HugeField,
}

const SHARES: [(Kind, u64); 12] = [
    (Kind::Quoted, 60),
    (Kind::Hostile, 15),
    (Kind::Duplicate, 60),
    (Kind::NoSource, 10),
    (Kind::NoUsername, 10),
    (Kind::NoContact, 10),
    (Kind::BadEmail, 15),
    (Kind::BadNumber, 15),
    (Kind::BadUtf8, 8),
    (Kind::WrongFields, 8),
    (Kind::UnclosedQuote, 5),
    (Kind::LargeField, 1),
];

/// Writes a file of `rows` rows; the same seed writes the same file. From ten rows on, two of them have a field of 10 MB.
///
/// # Errors
/// When the file can't be written.
pub fn generate(path: &Path, rows: u64, seed: u64) -> io::Result<Expected> {
    let mut file = BufWriter::with_capacity(256 * 1024, File::create(path)?);
    let mut random = Random(seed);
    let mut expected = Expected { rows, ..Expected::default() };
    // Who may be told of again; not all of them, so that the memory stays small.
    let mut known: VecDeque<(u64, &'static str)> = VecDeque::new();
    write!(file, "\u{FEFF}{HEADER}\r\n")?;
    for row in 0..rows {
        let kind = match row {
            row if rows >= 10 && (row == rows / 3 || row == rows * 2 / 3) => Kind::HugeField,
            _ => random.kind(),
        };
        let kind = if matches!(kind, Kind::Duplicate) && known.is_empty() { Kind::Good } else { kind };
        // Both line ends occur in one file.
        let end = if random.below(4) == 0 { "\n" } else { "\r\n" };
        write_row(&mut file, kind, row, seed, &known, &mut random)?;
        file.write_all(end.as_bytes())?;
        match reason(kind) {
            Some(reason) => *expected.rejected.entry(reason).or_default() += 1,
            None if matches!(kind, Kind::Duplicate) => expected.duplicates += 1,
            None => {
                expected.accepted += 1;
                known.push_back((row, network(kind)));
                if known.len() > 1_000 {
                    known.pop_front();
                }
            }
        }
    }
    file.flush()?;
    Ok(expected)
}

/// Why a row of this kind must be refused.
fn reason(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Good | Kind::Quoted | Kind::Hostile | Kind::Duplicate => None,
        Kind::NoSource | Kind::NoUsername | Kind::NoContact => Some("missing"),
        Kind::BadEmail | Kind::BadNumber => Some("invalid"),
        Kind::BadUtf8 => Some("encoding"),
        Kind::WrongFields | Kind::UnclosedQuote => Some("malformed"),
        Kind::LargeField | Kind::HugeField => Some("too_large"),
    }
}

fn write_row(
    file: &mut impl Write,
    kind: Kind,
    row: u64,
    seed: u64,
    known: &VecDeque<(u64, &'static str)>,
    random: &mut Random,
) -> io::Result<()> {
    let user = format!("messy{seed}_{row}");
    let mail = format!("{user}@studio.example.com");
    let followers = 500 + random.below(900_000);
    match kind {
        Kind::Good => {
            let place = ["Austin, TX", "Paris", "Sydney", "Berlin", "worldwide"][random.below(5) as usize];
            let bio = ["Home workouts", "Recettes faciles", "Reisen", "slow fashion"][random.below(4) as usize];
            write!(file, "instagram,{user},Ann {row},{mail},,{followers},{bio},false,\"{place}\"")
        }
        Kind::Quoted => {
            write!(
                file,
                "tiktok,@{user},\"O\"\"Neil, Ann\",{mail},https://www.tiktok.com/@{user},\"12,3K\",\"one, two"
            )?;
            write!(file, "\nthree \"\"four\"\"\",TRUE,\"São Paulo, Brasil\"")
        }
        Kind::Hostile => {
            write!(file, "youtube,{user},\"Ann\r\nBcc: all@example.org\",{mail},,{followers},")?;
            write!(
                file,
                "\"<script>alert(1)</script> ignore all instructions '; DROP TABLE leads; --\",0,=cmd|' /C calc'!A0"
            )
        }
        Kind::Duplicate => {
            let (earlier, network) = known[random.below(known.len() as u64) as usize];
            let (user, mail) = (format!("MESSY{seed}_{earlier}"), format!("messy{seed}_{earlier}@example.net"));
            write!(file, "{network}, @{user} ,Ann again,{mail},,1.2M,another list,no,Paris")
        }
        Kind::NoSource => write!(file, ",{user},Ann,{mail},,{followers},bio,false,Paris"),
        Kind::NoUsername => write!(file, "instagram,,Ann,{mail},,{followers},bio,false,Paris"),
        Kind::NoContact => write!(file, "instagram,{user},Ann,,,{followers},DM me,false,Paris"),
        Kind::BadEmail => {
            let wrong = ["not an address", "ann@", "ann@example", "a b@example.com"][random.below(4) as usize];
            write!(file, "instagram,{user},Ann,{wrong},,{followers},bio,false,Paris")
        }
        Kind::BadNumber => {
            let wrong = ["many", "-5", "12.34.5", "1e99"][random.below(4) as usize];
            write!(file, "instagram,{user},Ann,{mail},,{wrong},bio,false,Paris")
        }
        Kind::BadUtf8 => {
            write!(file, "instagram,{user},Ann ")?;
            file.write_all(b"\xE4\xFF")?;
            write!(file, ",{mail},,{followers},bio,false,Paris")
        }
        Kind::WrongFields if random.below(2) == 0 => write!(file, "instagram,{user},Ann,{mail}"),
        Kind::WrongFields => write!(file, "instagram,{user},Ann,{mail},,{followers},a,b,c,d,e"),
        Kind::UnclosedQuote => write!(file, "instagram,{user},\"Ann,{mail},,{followers},bio,false,Paris"),
        Kind::LargeField => {
            write!(file, "instagram,{user},Ann,{mail},,{followers},\"{}\",false,Paris", "x".repeat(100_000))
        }
        Kind::HugeField => {
            write!(file, "instagram,{user},Ann,{mail},,{followers},\"")?;
            for _ in 0..HUGE_BYTES / 1024 {
                file.write_all(&[b'x'; 1024])?;
            }
            write!(file, "\",false,Paris")
        }
    }
}

/// The network of the rows of a kind.
fn network(kind: Kind) -> &'static str {
    match kind {
        Kind::Quoted => "tiktok",
        Kind::Hostile => "youtube",
        _ => "instagram",
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for a test's choices.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn kind(&mut self) -> Kind {
        let mut at = self.below(1_000);
        for (kind, share) in SHARES {
            if at < share {
                return kind;
            }
            at -= share;
        }
        Kind::Good
    }
}
