//! Finds the one JSON object of an answer: behind reasoning, lead-in words and fences of any spelling, before closing words.

use serde_json::{Map, Value};

use super::Failure;

/// A field that every answer has; an object without it is none.
const MARK: &str = "score";
/// Reasoning is put between tags of these names.
const REASONING: [&str; 6] = ["think", "thinking", "reasoning", "thought", "reflection", "analysis"];
/// Opening braces that are looked at, at most.
const MOST_CANDIDATES: usize = 64;

/// The object, if there is exactly one.
///
/// # Errors
/// [`Failure::Truncated`] when an object begins and never ends, [`Failure::NotJson`] when there is none, or several.
pub(super) fn the_object(content: &str) -> Result<Map<String, Value>, Failure> {
    let content = content.trim_start_matches('\u{feff}').trim();
    let answer = behind_reasoning(content).ok_or(Failure::NotJson)?;
    let mut found = objects(answer);
    if found.is_empty() && answer.len() < content.len() {
        // A closing tag may also stand in a text of the object itself.
        found = objects(content);
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 if is_cut_off(answer) => Err(Failure::Truncated),
        _ => Err(Failure::NotJson),
    }
}

/// What follows the last closing tag of reasoning; `None` when reasoning was begun and never ended.
fn behind_reasoning(content: &str) -> Option<&str> {
    let lower = content.to_ascii_lowercase();
    let close = REASONING.iter().filter_map(|tag| {
        let tag = format!("</{tag}>");
        lower.rfind(&tag).map(|at| at + tag.len())
    });
    if let Some(end) = close.max() {
        return Some(&content[end..]);
    }
    let is_open = REASONING.iter().any(|tag| lower.starts_with(&format!("<{tag}>")));
    (!is_open).then_some(content)
}

/// Every object with the mark, from left to right; one inside of another only when the outer one has no mark.
fn objects(text: &str) -> Vec<Map<String, Value>> {
    let mut found = Vec::new();
    let mut from = 0;
    for _ in 0..MOST_CANDIDATES {
        let Some(start) = text[from..].find('{').map(|at| from + at) else { break };
        let object = end_of_object(&text[start..]).and_then(|end| Some((end, parse(&text[start..start + end])?)));
        from = match object {
            Some((end, object)) if object.contains_key(MARK) => {
                found.push(object);
                start + end
            }
            _ => start + 1,
        };
    }
    found
}

/// Reads an object; a comma before a closing bracket, which many models write, is forgiven.
fn parse(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_trailing_commas(text))).ok()
}

/// Where the object ends that begins with the first character, in bytes.
fn end_of_object(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut strings = Strings::default();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if strings.is_inside(byte) => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn without_trailing_commas(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut strings = Strings::default();
    for (at, character) in text.char_indices() {
        let inside = strings.is_inside(u8::try_from(character).unwrap_or(b'x'));
        let closes = || text[at + 1..].trim_start().starts_with(['}', ']']);
        if !(character == ',' && !inside && closes()) {
            result.push(character);
        }
    }
    result
}

/// Tells what stands in a JSON string.
#[derive(Default)]
struct Strings {
    open: bool,
    escaped: bool,
}

impl Strings {
    /// Takes the next byte and says whether it belongs to a string, its quotes included.
    fn is_inside(&mut self, byte: u8) -> bool {
        if !self.open {
            self.open = byte == b'"';
            return self.open;
        }
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.open = false;
        }
        true
    }
}

/// Whether an object begins and never ends.
fn is_cut_off(text: &str) -> bool {
    text.find('{')
        .is_some_and(|start| text[start + 1..].trim_start().starts_with('"') && end_of_object(&text[start..]).is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_support::llm::good_answer;

    use super::*;

    #[test]
    fn the_one_object_is_found_whatever_stands_around_it() {
        let good = good_answer().to_string();
        for content in [
            good.clone(),
            format!("\u{feff}{good}"),
            format!("```json\n{good}\n```"),
            format!(" ```\n{good}```\n"),
            format!("```JSON\n{good}\n```"),
            format!("~~~json5\n{good}\n~~~"),
            format!("```json\n{good}\n```\nLet me know if you need anything else!"),
            format!("Here is the assessment:\n\n```json\n{good}\n```"),
            format!("<think>\nThe creator likes {{sport}}. Fine.\n</think>\n\n{good}"),
            format!("<think>ok</think>\n```json\n{good}\n```"),
            format!("<THINK>A first draft: {good}</THINK>{good}"),
            format!("no opening tag, as some servers cut it off {{\"score\": 1}}</think>{good}"),
            format!("<|channel|>final<|message|>{good}"),
            format!("[{good}]"),
            format!("{{\"result\": {good}}}"),
            format!("{},}}", &good[..good.len() - 1]),
            good.replace("A close audience", "A </think> close audience"),
        ] {
            let object = the_object(&content).unwrap_or_else(|failure| panic!("{failure:?}: {content}"));
            assert_eq!(object["score"], 88, "{content}");
        }
    }

    #[test]
    fn no_object_several_of_them_or_half_of_one_is_no_answer() {
        let good = good_answer().to_string();
        for (content, failure) in [
            ("Sure! Here you go: {}".to_owned(), Failure::NotJson),
            (String::new(), Failure::NotJson),
            ("[1]".to_owned(), Failure::NotJson),
            ("\"text\"".to_owned(), Failure::NotJson),
            ("{} {}".to_owned(), Failure::NotJson),
            (format!("{good} or rather {good}"), Failure::NotJson),
            (format!("<think>{good}"), Failure::NotJson),
            ("{{{{{{".repeat(1_000), Failure::NotJson),
            ("{\"niche\": \"fit".to_owned(), Failure::Truncated),
            ("```json\n{\"niche\": \"fit".to_owned(), Failure::Truncated),
            (format!("<think>ok</think>{}", &good[..good.len() - 2]), Failure::Truncated),
        ] {
            assert_eq!(the_object(&content).unwrap_err(), failure, "{content}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_search_fail_otherwise(content in "(\\PC|[{}\\[\\]\",:\\\\]|\"score\": 1|<think>|</think>){0,80}") {
            let _ = the_object(&content);
        }
    }
}
