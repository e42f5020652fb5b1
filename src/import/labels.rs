//! Gmail's own labels under the names that an export gives them, which are in the language of the
//! account. What is not here is a person's own label, whose id only Gmail knows.
//!
//! The English and French names are those of exports; the others are the words of Gmail's interface.

/// What a name of an export stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// A label of Gmail's own: its id.
    Label(&'static str),
    /// A state that the API shows by the absence of a label.
    State,
}

/// A message's labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Ids of Gmail's own.
    pub ids: Vec<String>,
    /// Names of the person's own, whose ids are not known yet.
    pub names: Vec<String>,
}

/// Parts names into those that are known and those that only Gmail can tell.
pub fn sort(names: Vec<String>) -> Labels {
    let mut labels = Labels::default();
    for name in names {
        let (list, word) = match known(&name) {
            Some(Known::State) => continue,
            Some(Known::Label(id)) => (&mut labels.ids, id.to_owned()),
            None => (&mut labels.names, name),
        };
        if !list.contains(&word) {
            list.push(word);
        }
    }
    labels
}

/// What a name stands for, if it is not a person's own.
pub fn known(name: &str) -> Option<Known> {
    let name = plain(name);
    if let Some((id, _)) = find(LABELS, &name) {
        return Some(Known::Label(id));
    }
    if STATES.contains(&name.as_str()) {
        return Some(Known::State);
    }
    let category = CATEGORY.iter().find_map(|word| name.strip_prefix(word))?;
    let category = category.trim_matches(|c: char| !c.is_alphanumeric());
    find(CATEGORIES, category).map(|(id, _)| Known::Label(id))
}

/// Lower case, with spaces that are only spaces, as they differ between exports.
fn plain(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

type Table = &'static [(&'static str, &'static [&'static str])];

fn find(table: Table, name: &str) -> Option<(&'static str, &'static [&'static str])> {
    table
        .iter()
        .find(|(_, names)| names.contains(&name))
        .copied()
}

#[rustfmt::skip]
const LABELS: Table = &[
    ("INBOX", &["inbox", "posteingang", "boîte de réception", "recibidos", "bandeja de entrada",
        "posta in arrivo", "caixa de entrada", "postvak in", "odebrane", "входящие", "受信トレイ",
        "收件箱", "收件匣", "받은편지함", "gelen kutusu", "indbakke", "inkorg", "inkorgen", "innboks",
        "postilaatikko", "doručená pošta", "beérkező levelek", "вхідні", "εισερχόμενα"]),
    ("SENT", &["sent", "sent mail", "gesendet", "envoyé", "envoyés", "messages envoyés", "enviado",
        "enviados", "inviato", "inviati", "posta inviata", "verzonden", "wysłane", "отправленные",
        "送信済み", "送信済みメール", "已发送", "已发邮件", "已傳送", "寄件備份", "보낸편지함", "gönderilmiş postalar",
        "sendt", "skickat", "lähetetyt", "odeslaná pošta", "odeslané", "elküldött", "надіслані",
        "απεσταλμένα"]),
    ("DRAFT", &["draft", "drafts", "entwurf", "entwürfe", "brouillon", "brouillons", "borrador",
        "borradores", "bozza", "bozze", "rascunho", "rascunhos", "concept", "concepten",
        "wersje robocze", "черновик", "черновики", "下書き", "草稿", "임시보관함", "taslaklar", "kladder",
        "utkast", "luonnokset", "koncepty", "piszkozatok", "чернетки", "πρόχειρα"]),
    ("SPAM", &["spam", "junk", "спам", "迷惑メール", "垃圾邮件", "垃圾郵件", "스팸함", "søppelpost", "skräppost",
        "roskaposti", "ανεπιθύμητα"]),
    ("TRASH", &["trash", "bin", "papierkorb", "corbeille", "papelera", "cestino", "lixeira", "lixo",
        "prullenbak", "kosz", "корзина", "ゴミ箱", "已删除邮件", "垃圾桶", "휴지통", "çöp kutusu", "papirkurv",
        "papperskorgen", "papirkorg", "roskakori", "koš", "kuka", "кошик", "κάδος"]),
    ("UNREAD", &["unread", "ungelesen", "non lu", "non lus", "no leído", "no leídos", "non letto",
        "non letti", "da leggere", "não lido", "não lidos", "não lidas", "ongelezen", "nieprzeczytane",
        "непрочитанные", "未読", "未读", "未讀", "읽지않음", "읽지 않음", "okunmamış", "ulæst", "ulest", "uleste",
        "oläst", "olästa", "lukemattomat", "nepřečtené", "olvasatlan", "непрочитані", "μη αναγνωσμένα"]),
    ("STARRED", &["starred", "markiert", "suivi", "suivis", "messages suivis", "favoris", "destacado",
        "destacados", "speciale", "speciali", "com estrela", "met ster", "oznaczone gwiazdką",
        "помеченные", "スター付き", "已加星标", "已加星號", "별표편지함", "yıldızlı", "stjernemarkeret",
        "stjernemerket", "stjärnmärkt", "stjärnmärkta", "tähdellä merkityt", "s hvězdičkou",
        "csillagozott", "із зірочкою", "με αστέρι"]),
    ("IMPORTANT", &["important", "wichtig", "importants", "importante", "importantes", "importanti",
        "belangrijk", "ważne", "важное", "важные", "重要", "重要邮件", "重要郵件", "중요", "önemli", "vigtigt",
        "viktig", "viktigt", "tärkeät", "důležité", "fontos", "важливі", "σημαντικά"]),
    ("CHAT", &["chat", "chats", "чаты", "チャット", "聊天", "czat", "czaty", "채팅", "sohbetler"]),
];

#[rustfmt::skip]
const STATES: &[&str] = &[
    "opened", "geöffnet", "ouvert", "ouverts", "abierto", "abiertos", "aperto", "aperti", "aberto",
    "abertos", "aberta", "geopend", "otwarte", "открытые", "открыто", "開封済み", "已打开", "已開啟",
    "archived", "archiviert", "archivé", "archivés", "messages archivés", "archivado", "archivados",
    "archiviato", "archiviati", "arquivado", "arquivados", "gearchiveerd", "zarchiwizowane",
    "архивированные", "заархивированные", "アーカイブ", "アーカイブ済み", "已归档", "已封存",
];

/// What stands before the name of a category.
#[rustfmt::skip]
const CATEGORY: &[&str] = &[
    "category", "kategorie", "catégorie", "categoría", "categoria", "categorie", "kategoria",
    "категория", "カテゴリ", "类别", "類別",
];

#[rustfmt::skip]
const CATEGORIES: Table = &[
    ("CATEGORY_PERSONAL", &["personal", "e-mails personnels", "persönlich", "personales", "personale",
        "pessoal", "persoonlijk", "osobiste", "личное", "личные", "個人", "个人"]),
    ("CATEGORY_SOCIAL", &["social", "réseaux sociaux", "soziale netzwerke", "soziales", "sociales",
        "sociale", "sociaal", "społeczności", "społecznościowe", "соцсети", "ソーシャル", "社交", "社交網路"]),
    ("CATEGORY_PROMOTIONS", &["promotions", "werbung", "promociones", "promozioni", "promoções",
        "promoties", "oferty", "промоакции", "プロモーション", "推广", "促销", "促銷內容"]),
    ("CATEGORY_UPDATES", &["updates", "benachrichtigungen", "notifications", "notificaciones",
        "actualizaciones", "mises à jour", "aggiornamenti", "atualizações", "powiadomienia",
        "оповещения", "新着", "最新情報", "动态", "最新快訊"]),
    ("CATEGORY_FORUMS", &["forums", "forum", "foren", "foros", "fóruns", "fora", "форумы",
        "フォーラム", "论坛", "論壇"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str) -> &'static str {
        match known(name) {
            Some(Known::Label(id)) => id,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn gmails_own_labels_are_known_in_many_languages() {
        for (name, id) in [
            ("Inbox", "INBOX"),
            ("Posteingang", "INBOX"),
            ("Boîte de réception", "INBOX"),
            ("Recibidos", "INBOX"),
            ("Входящие", "INBOX"),
            ("受信トレイ", "INBOX"),
            ("Non\u{a0}lus", "UNREAD"),
            ("Envoyé", "SENT"),
            ("Category Promotions", "CATEGORY_PROMOTIONS"),
            ("Category promotions", "CATEGORY_PROMOTIONS"),
            ("Catégorie\u{a0}: E-mails personnels", "CATEGORY_PERSONAL"),
            ("Kategorie \u{201e}Werbung\u{201c}", "CATEGORY_PROMOTIONS"),
        ] {
            assert_eq!(label(name), id, "{name}");
        }
        for state in ["Opened", "Ouvert", "Archivés", "Geöffnet"] {
            assert_eq!(known(state), Some(Known::State), "{state}");
        }
        for own in [
            "Travel, 2023",
            "Inbox/Later",
            "Category of mine",
            "Category",
            "",
        ] {
            assert_eq!(known(own), None, "{own}");
        }
    }

    #[test]
    fn no_name_stands_for_two_labels() {
        let mut names: Vec<&str> = Vec::new();
        names.extend(LABELS.iter().flat_map(|(_, names)| names.iter()));
        names.extend(STATES);
        let categories = CATEGORIES.iter().flat_map(|(_, names)| names.iter());
        for list in [names, categories.copied().collect()] {
            for (index, name) in list.iter().enumerate() {
                assert!(!list[..index].contains(name), "{name} twice");
                assert_eq!(&plain(name), name, "is looked for in this form");
            }
        }
    }

    #[test]
    fn names_are_parted_and_each_label_comes_once() {
        let names = ["Sent", "Opened", "Mine", "Inbox", "Sent Mail", "Mine"];
        let labels = sort(names.map(str::to_owned).to_vec());
        assert_eq!(labels.ids, ["SENT", "INBOX"]);
        assert_eq!(labels.names, ["Mine"]);
    }
}
