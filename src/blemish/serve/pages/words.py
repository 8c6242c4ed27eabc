"""Every text of the pages, in German and English."""

from __future__ import annotations

from collections.abc import Mapping

LANGUAGES = ("en", "de")

TEXTS: Mapping[str, tuple[str, str]] = {
    # key: (English, German)
    "live": ("Live", "Live"),
    "history": ("History", "Verlauf"),
    "review": ("Review", "Prüfen"),
    "threshold": ("Threshold", "Schwelle"),
    "drift": ("Drift", "Drift"),
    "menu live": ("Live", "Live"),
    "menu history": ("History", "Verlauf"),
    "menu review": ("Review", "Prüfen"),
    "menu threshold": ("Threshold", "Schwelle"),
    "menu drift": ("Drift", "Drift"),
    "menu learn": ("Learn", "Lernen"),
    "menu products": ("Products", "Produkte"),
    "menu sources and sinks": ("Sources", "Quellen"),
    "menu users": ("Users", "Benutzer"),
    "menu audit": ("Audit", "Protokoll"),
    "did add user": ("added a user", "Benutzer angelegt"),
    "did change user": ("changed a user", "Benutzer geändert"),
    "did wrong password": ("wrong password", "falsches Passwort"),
    "did log in": ("logged in", "angemeldet"),
    "did add token": ("made a token", "Schlüssel angelegt"),
    "did revoke token": ("ended a token", "Schlüssel widerrufen"),
    "did drift alarm": ("drift alarm", "Drift-Alarm"),
    "did settle drift alarm": ("saw to a drift alarm", "Drift-Alarm erledigt"),
    "did set threshold": ("moved the threshold", "Schwelle gesetzt"),
    "did learn": ("started to learn", "Lernen begonnen"),
    "did change model": ("changed the model", "Modell gewechselt"),
    "did discard candidate": ("discarded a candidate", "Kandidat verworfen"),
    "no drift": (
        "The order of scores tells nothing: no sign of drift.",
        "Die Reihenfolge der Werte sagt nichts: keine Drift.",
    ),
    "drift since": ("The line has changed, since about {}.", "Die Linie hat sich verändert, etwa seit {}."),
    "drift rate": (
        "Evidence against an unchanged line; an alarm comes at {}. In a run of {} parts of an unchanged line the "
        "chance of a false alarm is at most {}.",
        "Beleg gegen eine unveränderte Linie; Alarm bei {}. In einem Lauf von {} Teilen einer unveränderten Linie ist "
        "ein Fehlalarm höchstens mit Wahrscheinlichkeit {} zu erwarten.",
    ),
    "brightness of newest": ("Brightness of the newest {} parts", "Helligkeit der neuesten {} Teile"),
    "sharpness of newest": ("Sharpness of the newest {} parts", "Schärfe der neuesten {} Teile"),
    "show good": ("Compare with good parts", "Mit guten Teilen vergleichen"),
    "good unknown": (
        "The model that judged this part names no good ones, or isn't here any more.",
        "Das Modell, das dieses Teil beurteilt hat, nennt keine guten oder ist nicht mehr da.",
    ),
    "alarm": ("alarm", "Alarm"),
    "before": ("Before", "Vorher"),
    "after": ("After", "Nachher"),
    "settle": ("Seen to it, begin anew", "Erledigt, neu beginnen"),
    "learn": ("Learn", "Lernen"),
    "in force": ("In force", "Im Einsatz"),
    "candidate": ("Candidate", "Kandidat"),
    "earlier candidates": ("Earlier candidates", "Frühere Kandidaten"),
    "go back": ("Back to the model before", "Zurück zum vorigen Modell"),
    "to learn from": ("What people have judged", "Was Menschen beurteilt haben"),
    "good pictures": (
        "{} good parts to learn from, and {} that no model learns from, to compare with",
        "{} gute Teile zum Lernen, und {} zum Vergleichen, von denen kein Modell lernt",
    ),
    "defective pictures": ("Defective parts, to compare with: {}", "Fehlerhafte Teile zum Vergleichen: {}"),
    "pictures gone": ("{} more were judged whose pictures are gone", "{} weitere beurteilt, deren Bilder fehlen"),
    "update": ("Add to the model", "Zum Modell hinzufügen"),
    "update means": (
        "The model keeps what it knows, learns the good parts as well, and gets a new threshold.",
        "Das Modell behält, was es kennt, lernt die guten Teile dazu und bekommt eine neue Schwelle.",
    ),
    "fit": ("Learn anew", "Neu lernen"),
    "fit means": (
        "A model with the same settings learns from these good parts, and from the data set that the configuration "
        "names.",
        "Ein Modell mit denselben Einstellungen lernt von diesen guten Teilen und vom Datensatz, den die "
        "Konfiguration nennt.",
    ),
    "progress": ("Progress", "Fortschritt"),
    "starts": ("starts", "beginnt"),
    "false alarms of": (
        "False alarms, of {} good parts that no model has learned from",
        "Fehlalarme unter {} guten Teilen, von denen kein Modell gelernt hat",
    ),
    "misses of": ("Missed, of {} defective parts", "Übersehen unter {} fehlerhaften Teilen"),
    "shadow anomalous": ("In the shadow: NG, of the newest {} parts", "Im Schatten: NG unter den neuesten {} Teilen"),
    "shadow false alarms": (
        "In the shadow: false alarms, of {} that people judged good",
        "Im Schatten: Fehlalarme unter {} als gut beurteilten",
    ),
    "shadow misses": (
        "In the shadow: missed, of {} that people judged defective",
        "Im Schatten: übersehen unter {} als fehlerhaft beurteilten",
    ),
    "shadow failed": (
        "The candidate could not inspect {} parts. See shadow.txt in the station's folder.",
        "Der Kandidat konnte {} Teile nicht prüfen. Siehe shadow.txt im Ordner der Station.",
    ),
    "differ": ("Newest parts on which the two don't agree", "Neueste Teile, bei denen beide nicht übereinstimmen"),
    "promote": ("Put into force", "In Einsatz nehmen"),
    "discard": ("Discard", "Verwerfen"),
    "confirm promotion": (
        "From the next part on, this candidate decides. Put it into force?",
        "Ab dem nächsten Teil entscheidet dieser Kandidat. In Einsatz nehmen?",
    ),
    "running": ("being made", "in Arbeit"),
    "ready": ("ready", "bereit"),
    "promoted": ("put into force", "in Einsatz genommen"),
    "discarded": ("discarded", "verworfen"),
    "interrupted": ("interrupted", "unterbrochen"),
    "broken": ("failed", "gescheitert"),
    "products": ("Products and models", "Produkte und Modelle"),
    "sources": ("Sources", "Quellen"),
    "sources and sinks": ("Sources and sinks", "Quellen und Ziele"),
    "show picture": ("Show a picture", "Bild zeigen"),
    "newest picture": ("The picture that came last", "Das zuletzt gekommene Bild"),
    "finished": ("finished", "fertig"),
    "sinks": ("Where verdicts go", "Wohin Urteile gehen"),
    "no sinks": (
        "Verdicts go nowhere else. The configuration lists sinks: mqtt, webhook, folder, csv, opcua, modbus.",
        "Urteile gehen sonst nirgends hin. Die Konfiguration nennt Ziele: mqtt, webhook, folder, csv, opcua, modbus.",
    ),
    "address": ("Address", "Adresse"),
    "waiting": ("Verdicts that wait", "Wartende Urteile"),
    "last delivered": ("Last delivered", "Zuletzt geliefert"),
    "last error": ("Last error", "Letzter Fehler"),
    "users": ("Users", "Benutzer"),
    "audit": ("Audit", "Protokoll"),
    "verdict": ("Verdict", "Urteil"),
    "normal": ("OK", "OK"),
    "anomalous": ("NG", "NG"),
    "failed": ("NOT INSPECTED", "NICHT GEPRÜFT"),
    "none yet": ("No part yet", "Noch kein Teil"),
    "waiting for parts": (
        "The station waits for pictures: from its watched folders, or by POST /api/v1/inspect.",
        "Die Station wartet auf Bilder: aus den überwachten Ordnern oder über POST /api/v1/inspect.",
    ),
    "today": ("Today", "Heute"),
    "parts": ("parts", "Teile"),
    "score": ("Score", "Wert"),
    "raw threshold": ("Threshold", "Schwelle"),
    "product": ("Product", "Produkt"),
    "part": ("Part", "Teil"),
    "source": ("Source", "Quelle"),
    "time": ("Time", "Zeit"),
    "label": ("Verdict", "Urteil"),
    "feedback": ("Feedback", "Rückmeldung"),
    "model": ("Model", "Modell"),
    "error": ("Reason", "Grund"),
    "seconds": ("Seconds", "Sekunden"),
    "all": ("All", "Alle"),
    "period": ("Period", "Zeitraum"),
    "last hour": ("Last hour", "Letzte Stunde"),
    "last 24 hours": ("Last 24 hours", "Letzte 24 Stunden"),
    "last 7 days": ("Last 7 days", "Letzte 7 Tage"),
    "lowest score": ("Lowest score", "Kleinster Wert"),
    "highest score": ("Highest score", "Größter Wert"),
    "older": ("Older", "Ältere"),
    "newest": ("Newest", "Neueste"),
    "export": ("Export", "Export"),
    "nothing found": ("No verdict fits.", "Kein Urteil passt."),
    "searched to": ("Searched back to {}. Go on with “Older”.", "Gesucht bis {}. Weiter mit „Ältere“."),
    "right": ("Right", "Richtig"),
    "false alarm": ("False alarm", "Fehlalarm"),
    "missed": ("Missed", "Übersehen"),
    "no feedback": ("None", "Keine"),
    "defect kind": ("Kind of defect", "Fehlerart"),
    "note": ("Note", "Bemerkung"),
    "noted": ("Noted.", "Vermerkt."),
    "no picture": (
        "The picture wasn't kept, or can't be shown.",
        "Das Bild wurde nicht aufbewahrt oder kann nicht gezeigt werden.",
    ),
    "show map": ("Show what was found", "Befund zeigen"),
    "regions": ("Regions", "Bereiche"),
    "area": ("Area, pixels", "Fläche, Pixel"),
    "peak": ("Highest value", "Höchster Wert"),
    "place": ("Place (x, y)", "Ort (x, y)"),
    "is it right": ("Is this verdict right?", "Stimmt dieses Urteil?"),
    "wrong": ("Wrong", "Falsch"),
    "skip": ("Later", "Später"),
    "near": ("close to the threshold", "nahe an der Schwelle"),
    "control": ("control sample", "Stichprobe"),
    "left to review": ("{} to look at", "{} anzusehen"),
    "all reviewed": ("Nothing to look at. Thank you.", "Nichts anzusehen. Danke."),
    "keys": ("Keys: {}", "Tasten: {}"),
    "now": ("In force", "Gültig"),
    "proposed": ("Proposed", "Vorschlag"),
    "recent parts": ("Newest parts", "Neueste Teile"),
    "calibration": ("Calibration", "Kalibrierung"),
    "then more": (
        "Of the newest {} parts, {} would be called anomalous instead of {}.",
        "Von den neuesten {} Teilen würden {} statt {} als auffällig gelten.",
    ),
    "of judged": (
        "Of those that people judged: {} of {} good ones would be false alarms (now {}), {} of {} defective ones "
        "missed (now {}).",
        "Von den beurteilten: {} von {} guten wären Fehlalarme (jetzt {}), {} von {} fehlerhaften übersehen "
        "(jetzt {}).",
    ),
    "nobody judged": (
        "Nobody has judged any of these parts yet.",
        "Noch niemand hat eines dieser Teile beurteilt.",
    ),
    "reason": ("Reason for the change", "Grund der Änderung"),
    "set threshold": ("Set this threshold", "Diese Schwelle setzen"),
    "confirm threshold": (
        "From the next part on, {} decides instead of {}. Set it?",
        "Ab dem nächsten Teil entscheidet {} statt {}. Setzen?",
    ),
    "yes": ("Yes", "Ja"),
    "cancel": ("Cancel", "Abbrechen"),
    "needs reason": ("Say why.", "Grund angeben."),
    "needs role": ("This needs the role {}.", "Das braucht die Rolle {}."),
    "open": ("open", "offen"),
    "closed": ("opened when needed", "wird bei Bedarf geöffnet"),
    "state": ("State", "Zustand"),
    "fine": ("works", "läuft"),
    "folder": ("Folder", "Ordner"),
    "name": ("Name", "Name"),
    "role": ("Role", "Rolle"),
    "viewer": ("Viewer", "Betrachter"),
    "operator": ("Operator", "Bediener"),
    "engineer": ("Engineer", "Ingenieur"),
    "admin": ("Admin", "Verwalter"),
    "active": ("Active", "Aktiv"),
    "password": ("Password", "Passwort"),
    "add user": ("Add user", "Benutzer anlegen"),
    "tokens": ("Tokens of programs", "Schlüssel für Programme"),
    "add token": ("Add token", "Schlüssel anlegen"),
    "token told once": (
        "Copy this token now. It is never shown again.",
        "Diesen Schlüssel jetzt kopieren. Er wird nie wieder gezeigt.",
    ),
    "days": ("Days", "Tage"),
    "expires": ("Ends", "Endet"),
    "revoke": ("Revoke", "Widerrufen"),
    "revoked": ("revoked", "widerrufen"),
    "save": ("Save", "Speichern"),
    "close": ("Close", "Schließen"),
    "no accounts": (
        "Nobody has an account yet: anybody on this machine may operate the station. The link for the admin was "
        "printed when it started.",
        "Noch hat niemand ein Konto: jeder an diesem Rechner darf die Station bedienen. Der Link für den Verwalter "
        "wurde beim Start ausgegeben.",
    ),
    "who": ("Who", "Wer"),
    "action": ("Action", "Vorgang"),
    "detail": ("Detail", "Einzelheiten"),
    "chain whole": ("The chain of digests is whole.", "Die Prüfsummenkette ist unversehrt."),
    "chain broken": ("The chain is broken at row {}.", "Die Kette ist in Zeile {} gebrochen."),
    "log in": ("Log in", "Anmelden"),
    "make admin": ("Make the admin", "Verwalter anlegen"),
    "become admin": (
        "You become the admin of this station. From then on everybody needs an account.",
        "Sie werden Verwalter dieser Station. Von da an braucht jeder ein Konto.",
    ),
    "wrong login": ("Name or password is wrong.", "Name oder Passwort ist falsch."),
    "too many tries": (
        "Too many wrong passwords. Try again in {} seconds.",
        "Zu viele falsche Passwörter. In {} Sekunden wieder versuchen.",
    ),
    "log out": ("Log out", "Abmelden"),
    "dark": ("Dark or light", "Dunkel oder hell"),
    "language": ("Deutsch", "English"),
    "menu": ("Menu", "Menü"),
    "session ended": ("Your session has ended. Log in again.", "Die Sitzung ist beendet. Bitte neu anmelden."),
}
"""Key -> text by language, in the order of `LANGUAGES`; {} is filled in."""


class Words:
    """The texts in one language.

    Args:
        language: one of `LANGUAGES`.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._index = LANGUAGES.index(language)

    def __call__(self, key: str, *values: object) -> str:
        """The text of a key, with its values filled in."""
        return TEXTS[key][self._index].format(*values)


def preferred(accepted: str, chosen: str | None) -> str:
    """The language of a page: what was chosen, or what the browser asks for first among `LANGUAGES`."""
    if chosen in LANGUAGES:
        return str(chosen)
    for part in accepted.split(","):
        code = part.strip()[:2].lower()
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]
