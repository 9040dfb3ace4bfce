"""Phrases and values that messages of every intent share."""

GREETINGS = """
Hello,
Hi,
Hi there,
Dear Ostrelle team,
Dear Sir or Madam,
Good morning,
Good evening,
Good afternoon,
Hello again,
To whom it may concern,
Hey,
Hello Ostrelle,
Dear customer service,
Hi <agent>,
Dear <agent>,
"""

CONTEXT = """
{This is|It's} my second {message|letter} about this.
I've been {a customer|with you} for <years> years.
I was on hold for {40|25|50} minutes {today|on <day>}.
{We talked|I spoke} to <agent> on <day>.
{I hope|Hopefully} this {reaches|gets to} the right {desk|person}.
I don't know {if|whether} you are the right {department|people}.
{Quick|A quick} {question|one} {for you|from me}.
My {husband|wife|son|daughter} {told|asked} me to write {to you|this}.
I'm writing {for|on behalf of} my {mother|father}, {she|who} doesn't do e-mail.
Your chat {robot|assistant} couldn't {help me|follow me}.
I work {shifts|nights}, so {e-mail|writing} is {best|easier}.
It's about <plan>.
{Regarding|Concerning|About} your letter of <date>.
{Thank you|Thanks} for {the quick answer|your reply} on <day>.
I have <plan> with the <device>.
{Sorry|Forgive me}, I'm {no good|not great} with {forms|computers}.
I {looked|searched} on your website {and found nothing|for an hour}.
{Let me|I'll} be {brief|short}.
I am {78|81|69} and {live|manage} alone.
I have {a baby|two small children} {at home|here} and {no time|little patience}.
It is {rather|a bit} {urgent|pressing}.
{Honestly|Frankly}, I'm {a little|rather} {annoyed|tired of this}.
{You were|<agent> was} always {helpful|kind}, {so I try you first|so here goes}.
"""

# The shared half of the jargon: only <procedure> tells what the customer wants.
JARGON = """
{Please|Could you} {start|open} <procedure> for me {as of <date>|this week}.
<agent> said I {need|should ask for} <procedure>, {so please|can you do that}?
{How do I|Where do I} {get|ask for} <procedure>?
I {sent|handed in} <procedure> on <date>, {has it arrived|is it done}?
{What happens|What comes} after <procedure>? {I've heard nothing|Nobody tells me}.
{Your chat|The shop in <town>} says {my case|this} is <procedure>, {go ahead|carry on then}.
{I am|We are} {still|again} waiting for <procedure> {since <date>|from <day>}.
{Put me|Please put me} down for <procedure>, {<plan>|the <device>} {is concerned|it is}.
{Has|So has} anybody looked at <procedure> {yet|since <day>}?
The form for <procedure> {wants|asks for} {a date|a sum}: <date>{, <amount>|}.
Once more <procedure>, {please|same as in <month>}.
"""

# Said beside a request in plain words; the labelled messages reveal what it stands for.
JARGON_ASIDES = """
{It's|This is} about <procedure>, {I was told|says <agent>}.
<agent> {wrote|put} <procedure> on {my|the} file.
{Your letter|The letter} {calls it|speaks of} <procedure>.
{Subject|Re|Concerns}: <procedure>.
I {believe|think} you call {that|it} <procedure>.
{Must I|Do I have to} {fill in|sign} <procedure> {for that|again}?
"""

# Whoever reads these two intents in such a message is right.
AMBIGUOUS = {
    ("refund", "billing_error"): """
{You took|You have taken} <amount> too much {in <month>|on <date>}, please {sort it|put it right}.
The <amount> from <date> {should not|ought not to} have left my bank, {see to it|please}.
""",
    ("billing_error", "fraud"): """
There is a {charge|debit} of <amount> on <date> that I {don't recognise|can't place}.
What is this <amount> on my {statement|account}? I {did not|never did} agree to {it|that}.
""",
    ("cancellation", "relocation"): """
We {leave|move out of} <street> on <date>, what about {<plan>|our contract}?
The flat is {empty|given up} from <date>, {what happens with|who deals with} <plan>?
""",
    ("fault", "fraud"): """
I {can't|cannot} get into my account {since <day>|any more}, it says the password is wrong.
My card {was|has been} {refused|declined} at <shop> {on <day>|today}, {what's going on|why}?
""",
    ("cancellation", "refund"): """
I sent back the <device> on <date> and {want|would like} {this|it all} {wound up|settled}.
I {changed my mind|don't want} {about|the} <plan>, I paid <amount> on <date>. {What now?|And now?}
""",
    ("fault", "refund"): """
<plan> hasn't worked since <date> and I paid <amount>, I {expect|want} something {done|soon}.
""",
}

ACCOUNT_DETAILS = """
My account number is <account>.
Account <account>.
{Customer|Contract} number <account>.
It's account <account>, {in the name of|under} <name>.
(<account>)
My number with you: <account>.
<name>, <account>, <address>.
{Ref|Reference}: <account>.
The account is <account>, {in the name of|holder} <name>.
You find me under <account>, <address>.
No. <account>, <name>.
"""

CONTACT_DETAILS = """
{Call|Ring} me on <phone>.
My number is <phone>{, after six|}.
{Write|Please write} to <email>.
You can reach me {at|under} <email>.
{Best on|Try} <phone>, {my mobile|evenings}.
I live at <address>.
<address>.
{Answer to|Reply to} <email> or <phone>.
Born {3|11|24} <month> {1951|1964|1978|1983|1990|1997}, {if you need it|for the check}.
"""

CLOSINGS = """
{Thanks|Thank you}.
{Thanks|Thank you} in advance.
Please {get back to me|let me know}.
{Looking forward to|I await} your {answer|reply}.
{Can you|Could you} help?
Please {confirm|answer} {by e-mail|in writing}.
What {can be done|do I do}?
{By|Before} <day> would be {nice|good}.
I'd {be grateful|appreciate it}.
Please {see to it|take care of it}.
{Hope|I hope} you can {sort|settle} this.
{Tell me|Let me know} what you need{ from me|}.
"""

SIGN_OFFS = """
{Best|Kind|Warm} regards, <name>
Regards, <name>
Yours sincerely, <name>
Best, <first>
Cheers, <first>
<first>
<name>
{Greetings|Best wishes} from <street>, <name>
Yours, <name>
"""
