// language_consistency: words by script, function words, mixed texts. Expected shares are counted by hand.
#include "scoring.h"
#include "str.h"
#include <stdlib.h>

static float share(const char *language, const char *text) {
    char spec[64];
    snprintf(spec, sizeof spec, "language_consistency:language=%s", language);
    return score_text(spec, text, NULL);
}

static const char *const languages[] = {"en", "zh", "ja", "ko", "ru", "ar", "fr", "de", "es"};
#define LANGUAGES 9

// A text wholly in one language scores 1 for it and 0 for each of the others.
static void pure_texts(void **state) {
    static const char *const text[LANGUAGES] = {
        "Natalia sold 48 clips in April, and then she sold half as many in May. So altogether she sold 72 clips.",
        "娜塔莉亚四月份卖了四十八个夹子，五月份卖了一半。所以她一共卖了七十二个。",
        "ナタリアは四月にクリップを48個売りました。五月にはその半分を売りました。合計は72個です。",
        "나탈리아는 4월에 클립 48개를 팔았고 5월에는 그 절반을 팔았습니다. 모두 72개입니다.",
        "Наталья продала в апреле 48 заколок, а в мае вдвое меньше. Всего она продала 72 заколки.",
        "باعت ناتاليا ٤٨ مشبكا في أبريل ثم باعت نصف ذلك في مايو. المجموع هو ٧٢.",
        "Natalia a vendu 48 pinces en avril, puis elle en a vendu la moitié en mai. Donc elle a vendu 72 pinces en "
        "tout.",
        "Natalia verkaufte im April 48 Klammern und dann im Mai halb so viele. Also hat sie insgesamt 72 Klammern "
        "verkauft.",
        "Natalia vendió 48 clips en abril y luego vendió la mitad en mayo. Entonces vendió 72 clips en total.",
    };
    for (int i = 0; i < LANGUAGES; i++)
        for (int k = 0; k < LANGUAGES; k++) {
            float got = share(languages[k], text[i]);
            bool high = i == k ? got >= 0.95f : got <= 0.35f;
            if (!high) fail_msg("text %s, language %s: %g", languages[i], languages[k], (double)got);
            if (i >= 1 && i <= 5 && i != k) assert_near(got, 0, 0); // another script: nothing at all
        }
}

static void mixed_scripts(void **state) {
    // 4 Han characters = 2 words; "hello" and "world" are 2.
    assert_near(share("zh", "你好世界 hello world"), 0.5, 1e-6);
    assert_near(share("en", "你好世界 hello world"), 0.5, 1e-6);
    // 5 Han characters = 3 words (the odd one counts), 1 other.
    assert_near(share("zh", "我们去学校 school"), 0.75, 1e-6);
    assert_near(share("ru", "Ответ равен семи, because two plus five"), 3.0 / 7, 1e-6);
    assert_near(share("ko", "답은 seven 입니다"), 2.0 / 3, 1e-6);
    assert_near(share("ar", "الجواب هو seven"), 2.0 / 3, 1e-6);
    assert_near(share("en", "καλημέρα world"), 0.5, 1e-6); // a script of no language here
    // Kana make a sentence Japanese; each sentence is judged by itself.
    assert_near(share("ja", "これはペンです。\n这是一支非常好的钢笔对吧。"), 4.0 / 10, 1e-6);
    assert_near(share("zh", "これはペンです。\n这是一支非常好的钢笔对吧。"), 6.0 / 10, 1e-6);
    assert_near(share("ja", "結論\nこれは本です。"), 1, 1e-6); // a heading without kana follows the text
    // Letters that another language of the script uses.
    assert_near(share("ru", "Відповідь семь"), 0.5, 1e-6);
    assert_near(share("ar", "پاسخ هفت است"), 2.0 / 3, 1e-6);
}

static void mixed_latin(void **state) {
    // "Ich", "ist", "der" are German, "the" and "answer" are not both: "the" is English, the other words follow "Ich".
    assert_near(share("de", "Ich denke the Ergebnis ist richtig"), 5.0 / 6, 1e-6);
    assert_near(share("en", "Ich denke the Ergebnis ist richtig"), 1.0 / 6, 1e-6);
    // Sentence by sentence.
    assert_near(share("fr", "Nous avons deux pommes. We have two apples."), 0.5, 1e-6);
    assert_near(share("en", "Nous avons deux pommes. We have two apples."), 0.5, 1e-6);
    assert_near(share("de", "Größe Straße"), 1, 0); // letters alone tell
    assert_near(share("en", "Größe Straße"), 0, 0);
    assert_near(share("es", "mañana"), 1, 0);
    assert_near(share("fr", "Berlin Paris Roma"), 1, 0);         // no evidence: the script is right
    assert_near(share("en", "smörgåsbord æble"), 0, 0);          // letters of a language that is not here, or of French
    assert_near(share("fr", "Total cost.\nWe have two."), 0, 0); // no evidence in the sentence: the text tells
}

static void what_is_read(void **state) {
    // Only between the tags, where they are.
    assert_near(share("en", "你好<think>so it is</think>你好"), 1, 0);
    assert_near(share("en", "so it is</think>你好"), 1, 0);
    assert_near(share("en", "你好世界<think>so it"), 1, 0);
    assert_near(share("en", "</think>so<think>it is"), 1,
                0); // tags the wrong way round: what follows the first opening
    assert_near(score_text("language_consistency:language=en,part=all", "好的<think>so it is</think>", NULL), 0.75,
                1e-6);
    // Formulas, code, tags, commands and variables are no words.
    assert_near(share("zh", "因为$abc=def$所以\\frac{a}{b}\\(xy+zw\\)你好\\[long formula\\]和$$more words$$"), 1, 0);
    assert_near(share("zh", "结果```python\nprint(hello)\n```如下<answer>"), 1, 0);
    assert_near(share("zh", "因为 x > y 并且 z 是三"), 1, 0);
    // Money is no formula.
    assert_near(share("zh", "$5 and then $6"), 0, 0);
    assert_near(share("en", "$5 and then $6"), 1, 0);
    assert_near(share("zh", "价格 $unclosed"), 0.5, 1e-6);
    // Nothing to count.
    assert_near(share("en", ""), 0, 0);
    assert_near(share("en", "2 + 2 = 4 ✓ x"), 0, 0);
    assert_near(share("en", "<think></think>so it is"), 0, 0);
}

static void hostile_texts(void **state) {
    Reward r = reward_opened("language_consistency");
    assert_near(score_by(&r, "so \xff\xfe it \xc3 is", NULL), 1, 0); // invalid bytes are no letters
    static const char *const unit[] = {"a",   "ab ", "中", "中 ",     "$",        "$a",     "```",
                                       "\\(", "\\[", "$$", "<a",      "\\",       "\u0301", "a\u0301",
                                       "한",  "é",   ".",  "<think>", "</think>", "\xff"};
    for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
        Str s = {0};
        while (s.n < 400000) str_puts(&s, unit[u]);
        float got = score_by(&r, s.s, NULL);
        if (!(got >= 0 && got <= 1) || reward_faults(&r, REWARD_REGEX_LIMIT))
            fail_msg("%s, repeated, gives %g", unit[u], (double)got);
        str_free(&s);
    }
    reward_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pure_texts),   cmocka_unit_test(mixed_scripts), cmocka_unit_test(mixed_latin),
        cmocka_unit_test(what_is_read), cmocka_unit_test(hostile_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
