"""The small lexicons of the eleven languages besides English (ISO 639-1 codes)."""

from __future__ import annotations

_GUNS = "Guns and Illegal Weapons"
_DRUGS = "Controlled/Regulated Substances"
_HARM = "Suicide and Self Harm"
_FRAUD = "Fraud/Deception"
_PLAN = "Criminal Planning/Confessions"

FOREIGN_HARMFUL: dict[str, dict[str, tuple[str, ...]]] = {
    language: {name: tuple(words.split()) for name, words in by_category.items()}
    for language, by_category in {
        "ar": {
            "Violence": "قتل تعذيب",
            _GUNS: "قنبلة مسدس",
            _DRUGS: "كوكايين حشيش",
            _HARM: "انتحار",
            _FRAUD: "احتيال تزوير",
            _PLAN: "سرقة",
        },
        "de": {
            "Violence": "mord folter",
            _GUNS: "granate gewehr",
            _DRUGS: "kokain haschisch",
            _HARM: "selbstmord",
            _FRAUD: "betrug fälschung",
            _PLAN: "einbruch",
        },
        "es": {
            "Violence": "asesinato tortura",
            _GUNS: "granada pistola",
            _DRUGS: "cocaína heroína",
            _HARM: "suicidio",
            _FRAUD: "estafa fraude",
            _PLAN: "secuestro",
        },
        "fr": {
            "Violence": "meurtre massacrer",
            _GUNS: "fusil munitions",
            _DRUGS: "cocaïne héroïne",
            _HARM: "pendaison",
            _FRAUD: "escroquerie arnaque",
            _PLAN: "cambriolage",
        },
        "hi": {
            "Violence": "हत्या मारपीट",
            _GUNS: "बंदूक बम",
            _DRUGS: "कोकीन गांजा",
            _HARM: "आत्महत्या",
            _FRAUD: "धोखाधड़ी जालसाजी",
            _PLAN: "डकैती",
        },
        "ja": {
            "Violence": "殺人 拷問",
            _GUNS: "爆弾 拳銃",
            _DRUGS: "麻薬 コカイン",
            _HARM: "自殺",
            _FRAUD: "詐欺 偽造",
            _PLAN: "強盗",
        },
        "th": {
            "Violence": "ฆาตกรรม ทรมาน",
            _GUNS: "ระเบิด ปืน",
            _DRUGS: "โคเคน กัญชา",
            _HARM: "ฆ่าตัวตาย",
            _FRAUD: "ฉ้อโกง ปลอมแปลง",
            _PLAN: "ปล้น",
        },
        "nl": {
            "Violence": "moord marteling",
            _GUNS: "granaat geweer",
            _DRUGS: "cocaïnepoeder wiet",
            _HARM: "zelfmoord",
            _FRAUD: "oplichting vervalsing",
            _PLAN: "inbraak",
        },
        "it": {
            "Violence": "omicidio torturare",
            _GUNS: "bomba fucile",
            _DRUGS: "cocaina eroina",
            _HARM: "suicidarsi",
            _FRAUD: "truffa frode",
            _PLAN: "rapina",
        },
        "ko": {
            "Violence": "살인 고문",
            _GUNS: "폭탄 권총",
            _DRUGS: "마약 대마초",
            _HARM: "자살",
            _FRAUD: "사기 위조",
            _PLAN: "강도",
        },
        "zh": {
            "Violence": "谋杀 酷刑",
            _GUNS: "炸弹 手枪",
            _DRUGS: "可卡因 海洛因",
            _HARM: "自尽",
            _FRAUD: "诈骗 伪钞",
            _PLAN: "抢劫",
        },
    }.items()
}

FOREIGN_NEUTRAL: dict[str, tuple[str, ...]] = {
    language: tuple(words.split())
    for language, words in {
        "ar": "كيف يمكنني هل أريد أن في مع كتاب مدرسة طعام شمس بيت صديق قهوة سفر موسيقى يوم اليوم",
        "de": "wie kann ich ein eine der die das mit für und buch schule wetter kuchen freund "
        "haus musik reise heute bitte",
        "es": "cómo puedo hacer un una el la con para y libro escuela tiempo pastel amigo casa "
        "música viaje hoy comida",
        "fr": "comment puis je faire un une le la avec pour et livre école temps gâteau ami "
        "maison musique voyage bonjour",
        "hi": "कैसे मैं क्या है को में और किताब स्कूल मौसम खाना दोस्त घर संगीत यात्रा आज चाय पानी",
        "ja": "どうやって 私は を の が です ますか 本 学校 天気 料理 友達 家 音楽 "
        "旅行 今日 お茶 水",
        "th": "อย่างไร ฉัน จะ ทำ ที่ และ หนังสือ โรงเรียน อากาศ อาหาร เพื่อน บ้าน ดนตรี เดินทาง วันนี้ ชา น้ำ",
        "nl": "hoe kan ik een het de met voor en boek school weer taart vriend huis muziek reis "
        "vandaag koffie",
        "it": "come posso fare un una il la con per e libro scuola tempo torta amico casa musica "
        "viaggio oggi",
        "ko": "어떻게 나는 을 를 이 가 책 학교 날씨 음식 친구 집 음악 여행 오늘 커피 물 만들",
        "zh": "怎么 我 你 的 在 和 书 学校 天气 食物 朋友 家 音乐 旅行 今天 咖啡 水 做",
    }.items()
}

UNSEGMENTED: tuple[str, ...] = ("ja", "th", "ko", "zh")
"""Scripts whose words are found inside a run of letters (Korean for its attached particles)."""
