//! Text as the rules see it: letters folded, digits of every script read, sentences apart.

/// Folds a text: lower case, no accents, Arabic letters in their plain form, digits of every script
/// as ASCII. The number of sentences and words does not change.
pub(super) fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            '\u{0300}'..='\u{036f}' | '\u{064b}'..='\u{0652}' | '\u{0640}' => {}
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            c => out.push(letter(c)),
        }
    }
    out
}

fn letter(c: char) -> char {
    if let Some(digit) = digit(c) {
        return digit;
    }
    match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'č' => 'c',
        'è'..='ë' | 'ē' | 'ę' | 'ě' => 'e',
        'ğ' => 'g',
        'ì'..='ï' | 'ı' | 'ī' => 'i',
        'ł' => 'l',
        'ñ' | 'ń' => 'n',
        'ò'..='ö' | 'ø' | 'ő' => 'o',
        'ś' | 'ş' | 'š' => 's',
        'ù'..='ü' | 'ū' | 'ű' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        'ё' => 'е',
        'أ' | 'إ' | 'آ' => 'ا',
        'ى' => 'ي',
        'ة' => 'ه',
        c => c,
    }
}

/// The ASCII digit of a digit in any script we know.
pub(super) fn digit(c: char) -> Option<char> {
    let zero = match c {
        '0'..='9' => '0',
        '٠'..='٩' => '٠',
        '۰'..='۹' => '۰',
        '०'..='९' => '०',
        '０'..='９' => '０',
        _ => return None,
    };
    char::from_digit(u32::from(c) - u32::from(zero), 10)
}

/// The words of a folded text with one space between, before and after; everything that is no
/// letter, mark or digit is a space.
pub(super) fn words(folded: &str) -> String {
    let mut out = String::with_capacity(folded.len() + 2);
    out.push(' ');
    for c in folded.chars() {
        // Devanagari vowel signs are marks, not letters, to Rust.
        if c.is_alphanumeric() || ('\u{0900}'..='\u{097f}').contains(&c) && c != '।' {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if !out.ends_with(' ') {
        out.push(' ');
    }
    out
}

/// The sentences of a text: split at the end of a line, at a full stop, question or exclamation mark
/// or semicolon before white space, at the marks of Chinese, Japanese, Hindi and Arabic, and where an
/// HTML comment begins.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let ends = match c {
            '\n' | '\r' | '。' | '！' | '？' | '；' | '।' | '؟' | '؛' => true,
            '.' | '!' | '?' | ';' => next.is_none_or(char::is_whitespace),
            _ => false,
        };
        let end = if ends {
            at + c.len_utf8()
        } else if text[at..].starts_with("<!--") {
            at
        } else {
            continue;
        };
        out.push(&text[start..end]);
        start = end;
    }
    out.push(&text[start..]);
    out.retain(|sentence| !sentence.trim().is_empty());
    out
}

/// Whether the sentence names a sum of money.
pub(super) fn has_amount(folded: &str) -> bool {
    let chars: Vec<char> = folded.chars().collect();
    let sign = |c: &char| "€£$¥₺₽₹".contains(*c);
    if chars.iter().any(sign) {
        return true;
    }
    let decimal = chars.windows(4).enumerate().any(|(at, four)| {
        four[0].is_ascii_digit()
            && matches!(four[1], '.' | ',')
            && four[2].is_ascii_digit()
            && four[3].is_ascii_digit()
            && chars.get(at + 4).is_none_or(|c| !c.is_ascii_digit() && *c != '.')
    });
    decimal
        || words(folded).split(' ').any(|word| {
            matches!(word, "eur" | "euro" | "euros" | "usd" | "gbp" | "quid" | "pounds" | "dollars")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_lose_their_accents_and_digits_their_script() {
        assert_eq!(
            fold("ZAMÓWIENIE İade Straße ١٠٦٢ १०६७ １０７６"),
            "zamowienie iade strasse 1062 1067 1076"
        );
        assert_eq!(words(&fold("don't —  stop!")), " don t stop ");
    }

    #[test]
    fn a_sentence_ends_before_white_space_and_not_inside_a_number() {
        assert_eq!(
            sentences("It cost 1.50 today. Why?\nBye"),
            ["It cost 1.50 today.", " Why?", "Bye"]
        );
        assert_eq!(sentences("退款！谢谢"), ["退款！", "谢谢"]);
        assert_eq!(sentences("a <!-- b -->"), ["a ", "<!-- b -->"]);
    }

    #[test]
    fn a_sum_has_a_currency_or_two_decimals() {
        for text in ["£79", "29,90", "69 euro", "6 quid"] {
            assert!(has_amount(text), "{text}");
        }
        for text in ["order 1042", "11.11.2026", "at 14:02"] {
            assert!(!has_amount(text), "{text}");
        }
    }
}
