//! Which order a text is about.

use super::text::{digit, fold};

/// Words before an order number, folded.
const CUES: [&str; 39] = [
    "order",
    "orders",
    "ord",
    "parcel",
    "bestellung",
    "bestellnr",
    "bestellnummer",
    "best",
    "auftrag",
    "auftragsnummer",
    "bestelnr",
    "bestelnummer",
    "bestelling",
    "ordernr",
    "ordernummer",
    "commande",
    "cde",
    "cmd",
    "pedido",
    "orden",
    "encomenda",
    "ordine",
    "zamowienie",
    "zamowienia",
    "zam",
    "заказ",
    "заказа",
    "заказу",
    "заказе",
    "заказом",
    "siparis",
    "siparisim",
    "siparisi",
    "ऑर्डर",
    "订单",
    "訂單",
    "注文",
    "الطلب",
    "طلب",
];
/// More cues of scripts whose words are not set apart.
const JOINED_CUES: [&str; 8] =
    ["订单号", "訂單編號", "订单编号", "注文番号", "طلبي", "طلبيتي", "طلبيه", "رقم الطلب"];
/// Words between a cue and its number.
const LINKS: [&str; 23] = [
    "no",
    "nr",
    "n",
    "num",
    "number",
    "numero",
    "номер",
    "नं",
    "नंबर",
    "号",
    "編號",
    "编号",
    "号码",
    "番号",
    "رقم",
    "は",
    "nbr",
    "s",
    "id",
    "o",
    "º",
    "is",
    "number's",
];
/// Words after a number that make it an order's.
const AFTER: [&str; 5] = ["号订单", "號訂單", "numarali", "nolu", "番"];
/// Words after a number that make it a sum or a measure.
const UNITS: [&str; 10] =
    ["eur", "euro", "euros", "usd", "gbp", "quid", "pounds", "kg", "zl", "gr"];

/// One run of digits.
struct Run<'a> {
    chars: &'a [char],
    start: usize,
    end: usize,
}

/// The number of the order a text is about: the best clue wins, among equals the first named.
///
/// A number after a word for an order (3 to 6 digits) is better than one after `#`, before "号订单" or
/// "numaralı", alone in brackets, or than a lone group of four digits, which must not be a year, a
/// price, a postcode or a piece of a telephone number.
pub(super) fn find(text: &str) -> Option<u32> {
    // Upper case tells a postcode's town; everything else is read folded.
    let raw: Vec<char> = text.chars().map(|c| digit(c).unwrap_or(c)).collect();
    let mut best: Option<(u8, u32)> = None;
    let mut at = 0;
    while at < raw.len() {
        if !raw[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        while at < raw.len() && raw[at].is_ascii_digit() {
            at += 1;
        }
        let run = Run { chars: &raw, start, end: at };
        if let Some(found) = run.judge()
            && best.is_none_or(|(score, _)| found.0 > score)
        {
            best = Some(found);
        }
    }
    best.map(|(_, number)| number)
}

impl Run<'_> {
    fn judge(&self) -> Option<(u8, u32)> {
        let digits: String = self.chars[self.start..self.end].iter().collect();
        let number = digits.parse().ok()?;
        if !(3..=6).contains(&digits.len()) || self.is_part() || self.is_amount() {
            return None;
        }
        let score = if self.has_cue() {
            5
        } else if self.before(0) == Some('#') || self.before(0) == Some('№') {
            4
        } else if AFTER.iter().any(|word| self.after_text().trim_start().starts_with(word)) {
            3
        } else if digits.len() < 4 || digits.len() > 5 {
            return None;
        } else if self.before(0) == Some('(') && self.after(0) == Some(')') {
            2
        } else if digits.len() == 4 && self.is_lone(number) {
            1
        } else {
            return None;
        };
        Some((score, number))
    }

    fn before(&self, back: usize) -> Option<char> {
        self.chars.get(self.start.checked_sub(back + 1)?).copied()
    }

    fn after(&self, on: usize) -> Option<char> {
        self.chars.get(self.end + on).copied()
    }

    fn after_text(&self) -> String {
        fold(&self.chars[self.end..].iter().take(24).collect::<String>())
    }

    /// Whether it is a piece of something longer: a word, a decimal, a long number.
    fn is_part(&self) -> bool {
        let latin = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '@';
        let joined = |c: Option<char>, beyond: Option<char>| {
            matches!(c, Some('.' | ',' | '/' | ':')) && beyond.is_some_and(|c| c.is_ascii_digit())
        };
        self.before(0).is_some_and(latin) && !self.has_cue()
            || self.after(0).is_some_and(latin)
            || joined(self.before(0), self.before(1))
            || joined(self.after(0), self.after(1))
    }

    fn is_amount(&self) -> bool {
        let sign = |c: char| "€£$¥₺₽₹%".contains(c);
        let skip = |c: Option<char>, next: Option<char>| match c {
            Some(' ' | '\u{a0}') => next,
            c => c,
        };
        if skip(self.before(0), self.before(1)).is_some_and(sign)
            || skip(self.after(0), self.after(1)).is_some_and(sign)
        {
            return true;
        }
        let text = self.after_text();
        let next = text.trim_start().split(|c: char| !c.is_alphanumeric()).next();
        next.is_some_and(|word| UNITS.contains(&word))
    }

    /// Whether a word for an order stands before it, with nothing but link words between.
    fn has_cue(&self) -> bool {
        let from = self.start.saturating_sub(40);
        let before = fold(&self.chars[from..self.start].iter().collect::<String>());
        let mut rest = before.as_str();
        for _ in 0..3 {
            rest = rest.trim_end_matches(|c: char| {
                c.is_whitespace() || "#:№-–.(),\"'“”„«»°º：".contains(c)
            });
            let word_cue = CUES.iter().any(|cue| ends_with_word(rest, cue));
            if word_cue || JOINED_CUES.iter().any(|cue| rest.ends_with(&fold(cue))) {
                return true;
            }
            let Some(link) = LINKS.iter().find(|link| ends_with_word(rest, link)) else {
                return false;
            };
            rest = &rest[..rest.len() - link.len()];
        }
        false
    }

    fn is_lone(&self, number: u32) -> bool {
        let near = |c: Option<char>, beyond: Option<char>| {
            matches!(c, Some(' ' | '-' | '.' | '/' | '(' | ')' | '+'))
                && beyond.is_some_and(|c| c.is_ascii_digit() || c == '+')
        };
        let telephone = near(self.before(0), self.before(1)) || near(self.after(0), self.after(1));
        let upper = |on: usize| self.after(on).is_some_and(char::is_uppercase);
        // "1012 AB" and ", 1040 Wien".
        let postcode = self.after(0) == Some(' ')
            && upper(1)
            && (upper(2) && self.after(3) == Some(' ')
                || self.before(0) == Some(' ') && self.before(1) == Some(','));
        let joined = matches!(self.before(0), Some('+' | '-')) || self.after(0) == Some('-');
        !(telephone || postcode || joined || (1900..=2030).contains(&number))
    }
}

/// Whether the text ends with this word: for letters that are set apart by spaces, not in the middle
/// of a longer word.
fn ends_with_word(text: &str, word: &str) -> bool {
    let Some(head) = text.strip_suffix(word) else { return false };
    let spaced = word.chars().all(|c| u32::from(c) < 0x0600);
    !spaced
        || head.chars().next_back().is_none_or(|c| !c.is_alphanumeric() || u32::from(c) > 0x0600)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn an_order_number_is_found_however_it_is_written() {
        for text in [
            "order 1042",
            "Order #1042",
            "ORDER NO. 1042!",
            "order-1042",
            "order#1042",
            "(1042)",
            "Bestellung Nr. 1042",
            "Best.-Nr. 1042",
            "commande n°1042",
            "pedido nº 1042",
            "encomenda n.º 1042",
            "ordine n. 1042",
            "zamówienie nr 1042",
            "zamowienie 1042",
            "bestelling 1042",
            "заказ №1042",
            "заказу 1042",
            "1042 numaralı siparişim",
            "sipariş no 1042",
            "رقم الطلب ١٠٤٢",
            "ऑर्डर नंबर १०४२",
            "订单号：1042",
            "1042号订单",
            "注文番号は１０４２です",
            "1042番の件",
            "where is 1042?",
            "is it #1042",
        ] {
            assert_eq!(find(text), Some(1042), "{text}");
        }
        assert_eq!(find("Order 10420, when?"), Some(10_420));
        assert_eq!(find("parcel 104?"), Some(104));
    }

    #[test]
    fn telephones_sums_years_and_postcodes_are_no_orders() {
        for text in [
            "call 020 7946 0958",
            "+44 7946 0958",
            "I paid 1,042.00 €",
            "1.042,50 €",
            "€1042",
            "1042 EUR",
            "since 2019",
            "at 1012 AB Amsterdam",
            "Gasse 3, 1040 Wien",
            "555-0142-77",
            "IBAN XX00 0000 0000",
            "parcel 00340000001094000042",
            "nothing",
            "23.11.2026",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }

    #[test]
    fn a_clue_beats_the_order_of_appearance() {
        assert_eq!(find("1299 paid for order 1025"), Some(1025));
        assert_eq!(find("orders, 1074 and 1075"), Some(1074));
        assert_eq!(find("1002 Wien? no, Bestellung 1004"), Some(1004));
    }
}
