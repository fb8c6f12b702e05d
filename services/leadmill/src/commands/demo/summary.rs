//! What became of the demo's leads, checked against the database.

use std::env;
use std::time::Duration;

use anyhow::bail;
use collector::intake::Summary;
use domain::id::{OutreachId, ProgramId};
use domain::program::Slug;
use serde_json::json;
use store::captured;
use store::status::Status;

use super::place::Place;
use crate::output;
use crate::services::Services;

/// How many captured mails are opened at once.
const PAGE: i64 = 500;

/// What a demo has seen.
pub struct Demo<'a> {
    /// Its program.
    pub slug: &'a Slug,
    /// Where it took place.
    pub place: &'a Place,
    /// What the collector counted.
    pub run: &'a Summary,
    /// How long collecting took.
    pub collecting_took: Duration,
    /// How long all of it took.
    pub took: Duration,
    /// What the database counts.
    pub status: &'a Status,
}

impl Demo<'_> {
    /// Checks the numbers and prints them.
    ///
    /// # Errors
    /// When a number isn't what the database counts.
    pub async fn check_and_print(&self, services: &Services, program: ProgramId, as_json: bool) -> anyhow::Result<()> {
        let readable = readable_mails(services, program).await?;
        let wrong = self.disagreements(readable);
        let rate = |count: i64, took: Duration| count as f64 / took.as_secs_f64().max(0.001);
        let (counts, status) = (&self.run.counts, self.status);
        let captured = self.outreach("captured");
        if as_json {
            output::json(&json!({
                "program": self.slug.as_str(),
                "database": self.place.database,
                "rows": counts.rows(),
                "collected": status.leads.accepted,
                "rejected": status.leads.rejected,
                "duplicates": status.leads.duplicates,
                "enriched": status.enriched.total,
                "by_provider": status.enriched.by_provider,
                "qualified": status.enriched.qualified,
                "declined": status.enriched.declined,
                "reasons": status.enriched.reasons,
                "captured": captured,
                "held": self.outreach("held"),
                "collecting_seconds": self.collecting_took.as_secs_f64(),
                "seconds": self.took.as_secs_f64(),
                "leads_per_second": rate(status.leads.accepted, self.took),
                "agrees_with_sql": wrong.is_empty(),
                "disagreements": wrong,
            }))?;
        } else {
            let with_rate = |label: &str, count: i64, took: Duration| {
                output::line(format_args!("  {label:<12}{count:>8}   {:>8.0} leads/s", rate(count, took)))
            };
            let plain = |label: &str, count: i64| output::line(format_args!("  {label:<12}{count:>8}"));
            output::line(format_args!(
                "\n{} rows in {:.1} s, from profile to captured mail:",
                counts.rows(),
                self.took.as_secs_f64()
            ))?;
            with_rate("collected", status.leads.accepted, self.collecting_took)?;
            plain("rejected", status.leads.rejected)?;
            plain("duplicates", status.leads.duplicates)?;
            with_rate("enriched", status.enriched.total, self.took)?;
            plain("qualified", status.enriched.qualified)?;
            with_rate("captured", captured, self.took)?;
            plain("held", self.outreach("held"))?;
            plain("declined", status.enriched.declined)?;
            if wrong.is_empty() {
                output::line("\nThe numbers agree with what SQL counts, and every captured mail opens.")?;
            }
            self.print_where_to_look()?;
        }
        if !wrong.is_empty() {
            bail!("the numbers don't agree with what SQL counts: {}", wrong.join("; "));
        }
        Ok(())
    }

    fn print_where_to_look(&self) -> anyhow::Result<()> {
        let slug = self.slug;
        let leadmill = env::args().next().unwrap_or_else(|| "leadmill".to_owned());
        output::line("\nWhere to look next:")?;
        for line in self.place.shell_lines() {
            output::line(format_args!("  {line}"))?;
        }
        for command in ["mail list", "mail list --state held", "rejects export", "status"] {
            output::line(format_args!("  {leadmill} {command} --program {slug}"))?;
        }
        output::line(format_args!(
            "  psql \"$DATABASE_URL\" -c \"SELECT niche, count(*), avg(score)::int FROM enriched_leads e\n\
             \x20      JOIN programs p ON p.id = e.program_id WHERE p.slug = '{slug}' GROUP BY niche ORDER BY 2 DESC\""
        ))
    }

    fn outreach(&self, state: &str) -> i64 {
        self.status.outreach.get(state).copied().unwrap_or_default()
    }

    /// Every number that two ways of counting don't agree on: what the collector counted as it went, what stands in the
    /// tables, and what follows from one table about another.
    fn disagreements(&self, readable_mails: i64) -> Vec<String> {
        let (counts, status) = (&self.run.counts, self.status);
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let captured = self.outreach("captured");
        let comparisons = [
            ("accepted rows and leads", signed(counts.accepted), status.leads.accepted),
            ("rejected rows and reject rows", signed(counts.rejected_new), status.leads.rejected),
            ("duplicates seen and recorded", signed(counts.duplicates), status.leads.duplicates),
            ("leads and enrichments", status.leads.accepted, status.enriched.total),
            ("enrichments and decisions", status.enriched.total, status.enriched.qualified + status.enriched.declined),
            ("qualified leads and mails", status.enriched.qualified, captured + self.outreach("held")),
            ("captured rows and mails that open", captured, readable_mails),
        ];
        comparisons
            .into_iter()
            .filter(|(_, one, other)| one != other)
            .map(|(what, one, other)| format!("{what}: {one} and {other}"))
            .collect()
    }
}

/// Opens every captured mail and counts them.
async fn readable_mails(services: &Services, program: ProgramId) -> anyhow::Result<i64> {
    let (db, vault) = (&services.process.db, services.process.programs.vault());
    let (mut count, mut after) = (0, None::<OutreachId>);
    loop {
        let page = db
            .transact("captured.page", |tx, _| Box::pin(captured::page(tx, vault, program, None, after, PAGE)))
            .await?;
        count += page.len() as i64;
        match page.last() {
            Some(last) => after = Some(last.outreach_id),
            None => return Ok(count),
        }
    }
}
