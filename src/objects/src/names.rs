//! Names, label keys and label values: the grammar that Kubernetes gives them, with its wording of complaints.
//!
//! Every check returns the list of complaints, empty when the text is good. Knows no kinds: which rule binds which
//! kind is said in `validate`.

/// Longest DNS-1123 label.
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS-1123 subdomain, the usual bound of an object's name.
pub const SUBDOMAIN_BYTES_MAX: usize = 253;
/// All annotations of an object together, keys and values.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Longest `generateName` that still leaves room for its suffix.
const GENERATE_BASE_BYTES_MAX: usize = 63 - SUFFIX_LETTERS;
/// Letters in a generated suffix.
const SUFFIX_LETTERS: usize = 5;
/// Consonants and digits that cannot spell a word or be misread.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether `text` is alphanumeric at both ends and alphanumeric or in `inner` between.
fn is_word(text: &str, alphanumeric: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    ends && bytes.iter().all(|byte| alphanumeric(*byte) || inner.contains(byte))
}

fn too_long(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} bytes")
}

/// Complaints about `text` as a DNS-1123 label (namespaces, container names, ports' names aside).
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_BYTES_MAX {
        complaints.push(too_long(LABEL_BYTES_MAX));
    }
    if !is_word(text, is_lower_alphanumeric, b"-") {
        complaints.push(if is_word(text, is_lower_alphanumeric, b"-.") {
            "must not contain dots".to_owned()
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned()
        });
    }
    complaints
}

/// Complaints about `text` as a DNS-1123 subdomain: the rule for most objects' names.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_BYTES_MAX {
        complaints.push(too_long(SUBDOMAIN_BYTES_MAX));
    }
    if !text.split('.').all(|label| is_word(label, is_lower_alphanumeric, b"-")) {
        complaints.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    complaints
}

/// Complaints about `text` as a DNS-1035 label: as DNS-1123, but it starts with a letter.
#[must_use]
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_BYTES_MAX {
        complaints.push(too_long(LABEL_BYTES_MAX));
    }
    let starts_with_letter = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !starts_with_letter || !is_word(text, is_lower_alphanumeric, b"-") {
        complaints.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    complaints
}

/// Complaints about `text` as one segment of a URL path: the rule for RBAC names, which may hold colons.
#[must_use]
pub fn path_segment(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text == "." || text == ".." {
        complaints.push(format!("may not be '{text}'"));
    }
    for forbidden in ['/', '%'] {
        if text.contains(forbidden) {
            complaints.push(format!("may not contain '{forbidden}'"));
        }
    }
    complaints
}

/// Complaints about `text` as a qualified name, `[prefix/]name`: label and annotation keys, resource names.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    const FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                        validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut complaints = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                complaints.extend(dns1123_subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        complaints.push(format!("name part {}", too_long(LABEL_BYTES_MAX)));
    }
    if !is_word(name, |byte| byte.is_ascii_alphanumeric(), b"-_.") {
        complaints.push(format!("name part {FORM}"));
    }
    complaints
}

/// Complaints about `text` as a label's value; empty is a good value.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > LABEL_BYTES_MAX {
        complaints.push(too_long(LABEL_BYTES_MAX));
    }
    if !text.is_empty() && !is_word(text, |byte| byte.is_ascii_alphanumeric(), b"-_.") {
        complaints.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    complaints
}

/// Complaints about `text` as a key of a ConfigMap's or Secret's data.
#[must_use]
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > SUBDOMAIN_BYTES_MAX {
        complaints.push(too_long(SUBDOMAIN_BYTES_MAX));
    }
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || !text.bytes().all(letters) {
        complaints.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    if text == "." || text == ".." {
        complaints.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        complaints.push("must not start with '..'".to_owned());
    }
    complaints
}

/// Complaints about `text` as the name of an environment variable: printable ASCII without `=`.
#[must_use]
pub fn env_var_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'=') {
        Vec::new()
    } else {
        vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ]
    }
}

/// Complaints about `text` as a named port: 1 to 15 letters, digits and single inner dashes, one letter at least.
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 15 {
        complaints.push(too_long(15));
    }
    let lower = |byte: u8| is_lower_alphanumeric(byte) || byte == b'-';
    if !text.bytes().all(lower) {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// A name made from `base` (`metadata.generateName`) and entropy that the caller drew.
#[must_use]
pub fn generate(base: &str, entropy: [u8; SUFFIX_LETTERS]) -> String {
    let mut cut = base.len().min(GENERATE_BASE_BYTES_MAX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut name = base.get(..cut).unwrap_or_default().to_owned();
    name.push_str(&suffix(entropy));
    name
}

/// Five letters of the suffix alphabet out of five random bytes.
#[must_use]
pub fn suffix(entropy: [u8; SUFFIX_LETTERS]) -> String {
    entropy.iter().map(|byte| letter(u64::from(*byte))).collect()
}

/// Writes `number` in letters of the suffix alphabet: each decimal digit becomes one, as the hash of a pod template
/// does in a ReplicaSet's name.
#[must_use]
pub fn encode_digits(number: u32) -> String {
    number.to_string().bytes().map(|digit| letter(u64::from(digit))).collect()
}

fn letter(number: u64) -> char {
    let position = usize::try_from(number % 27).unwrap_or_default();
    SUFFIX_ALPHABET.get(position).copied().map_or('b', char::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good and bad texts of every rule, side by side.
    #[test]
    fn grammar() {
        let long = "a".repeat(64);
        let longer = "a".repeat(254);
        type Rule = fn(&str) -> Vec<String>;
        let table: &[(Rule, &[&str], &[&str])] = &[
            (dns1123_label, &["a", "a-1", "0a"], &["", "-a", "a-", "A", "a.b", "a_b", "é", &long]),
            (dns1123_subdomain, &["a", "a.b-c.d", "0"], &["", ".", "a..b", "a.-b", "A", &longer]),
            (dns1035_label, &["a", "a-1"], &["", "1a", "a.b", "A", &long]),
            (qualified_name, &["a", "A_b.c", "example.com/x"], &["", "/x", "x/", "a/b/c", "-x", "X.com/a", &long]),
            (label_value, &["", "a", "A_b.c-1"], &["-a", "a-", "a/b", "a b", &long]),
            (
                config_map_key,
                &["a", "..a".trim_start_matches('.'), ".a", "A_b-c.d"],
                &["", ".", "..", "..a", "a/b", &longer],
            ),
            (env_var_name, &["A", "a.b", "1a", "a b"], &["", "a=b", "a\n", "é"]),
            (port_name, &["http", "a-1", "1a"], &["", "1", "a--b", "-a", "a-", "Http", "abcdefghijklmnop"]),
            (path_segment, &["system:x", "a b"], &[".", "..", "a/b", "a%b"]),
        ];
        for (position, (rule, good, bad)) in table.iter().enumerate() {
            for text in *good {
                assert_eq!(rule(text), Vec::<String>::new(), "rule {position}: {text:?}");
            }
            for text in *bad {
                assert!(!rule(text).is_empty(), "rule {position}: {text:?} must be refused");
            }
        }
    }

    /// A generated name keeps its base, is short enough for a label and uses only the suffix alphabet.
    #[test]
    fn generated_names() {
        assert_eq!(generate("web-", [0, 1, 26, 27, 255]), "web-bc9bq");
        let name = generate(&"é".repeat(60), [9; 5]);
        assert!(name.len() <= 63);
        assert!(dns1123_label(&generate(&"a".repeat(100), [7; 5])).is_empty());
    }
}
