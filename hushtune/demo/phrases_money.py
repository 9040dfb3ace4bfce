"""What customers write about money: phrases for two of the demo's intents.

The two share most of their words on purpose. A customer who wants a refund agrees with you about
what was charged and waits for money; a customer with a billing error says the figure is wrong.
"""

REFUND = """
{Please refund|I'd like a refund of|I want back} the <amount> {I paid|you took} on <date>.
When {will I get|do I get} my <amount> back?
{Could you|Please} {pay|send|transfer} the <amount> {credit|deposit} back to my bank account.
I returned the <device> on <date>, {please refund|now refund} <amount>.
I am {entitled to|owed} <amount> back {for the outage|under the guarantee} in <month>.
I'd like my <amount> {deposit|credit} {paid out|returned} {please|by <day>}.
{How long|How many days} does a refund {take|need}? It's <amount> {since|from} <date>.
"""

REFUND_INDIRECT = """
The credit of <amount> on my {account|statement} is idle, I'd {sooner|rather} have it back.
<agent> promised me <amount> {by <day>|in <month>}, and my bank has seen nothing {so far|yet}.
The <device> went back on <date> and I'm still <amount> {short|poorer}, when is it paid back?
I {paid|transferred} the <month> bill twice, {my fault|my error}. When do I get the second back?
I paid <amount> up front, {used|got} two weeks of it, and want the rest {back|returned}.
{You agreed|It was agreed} that I'd {see|have} the <amount> again, which day will that be?
The engineer {never came|didn't show up} on <date>, the letter says <amount> is due to {me|us}.
My deposit of <amount> has been {with you|in your hands} for <years> years, I could do with it.
{Here are|Here's} my bank details again for the <amount>, {same as|like} last time.
I don't want a voucher {for|over} the <amount>, {money|cash} will do.
{The final|Your final} bill says <amount> in my favour. {So where is it?|Well?}
Can the <amount> go to my {wife's|husband's} bank account {instead|rather than mine}?
{Three|Four|Six} weeks I've waited for <amount> that we both agree is mine.
You owe me <amount>, {as agreed|by your own letter}. A kettle boils faster.
I paid for the faster <plan> and never got {it|the speed}, so that <amount> {belongs to me|is mine}.
{Keep|You may keep} the <device>, I would like what I gave for it, all <amount>.
I {used|burned} less than the estimate, which leaves <amount> you {could return|still hold}.
The price promise says you {make up|hand over} the difference, that's <amount> by my reading.
Put the <amount> {on|back on} the card I used, {please|not on the next bill}.
Is there {compensation|money} for {four days|a week} without {power|internet}, say <amount>?
The cheque {for|over} <amount> came {back|torn}, can you do it {another way|by transfer}?
My {father|mother} died and there is <amount> left on {his|the} account, who do {we|I} ask for it?
"""

REFUND_ASIDES = """
The refund from <month> {arrived|came through}, {thank you|all good}.
I {don't want|am not after} money back, {mind you|to be clear}.
You already gave me <amount> for the {outage|delay}, {that's settled|fair enough}.
{Keep|You can keep} the few pounds, that's not {my point|why I write}.
My neighbour got <amount> {back|from you} last year, {good for him|lucky man}.
There is some credit on the account, {leave it there|you can leave that}.
{I got|We got} our deposit {back|returned} in <month>, no complaints there.
My bank {says|tells me} your transfer of <amount> {is in|landed on <day>}, thanks.
"""

BILLING_ERROR = """
{My|Our|The} bill for <month> is wrong, {it says|you charged} <amount> instead of <amount_2>.
I was charged twice for <plan> {in <month>|on <date>}.
There is {a mistake|an error} on the {invoice|bill} {of|from} <date>.
{You billed|You charged} me <amount> for a <device> I {don't have|never ordered}.
{Please check|Could you check} the <month> invoice, <amount> {can't be|isn't} right.
The {bill|invoice} {shows|has} the wrong {tariff|rate}, I'm on <plan>.
{Please|Can you} send a corrected {bill|invoice} for <month>, {not over|the sum isn't} <amount>.
"""

BILLING_ERROR_INDIRECT = """
{How|Please tell me how} does one person in two rooms {get to|use} <amount> in <month>?
We {agreed|said} <amount_2> a month and the paper in front of me says <amount>.
{I've read|I read} the meter {twice|three times} and it is nowhere near what you {wrote|put down}.
The discount that <agent> {promised|put in} {has gone missing|is not there} on the <month> bill.
{What|And what} is the <amount> on page two {for|supposed to be}?
I add it up and get <amount_2>, you {add it up|do} and get <amount>.
I paid on <date>, here is the receipt, {so why the reminder|yet you send a reminder} for <amount>?
My direct debit {jumped|went up} from <amount_2> to <amount> {overnight|without a word}.
{Since when|Why} does <plan> cost <amount>?
You {estimated|guessed} my reading, though I sent {it|one} on <date>.
{Somebody|Someone} typed a digit too many: <amount> for <month>?
The <device> is {listed|down} twice on the bill, I have one.
{We were|I was} away all <month>, yet the bill {says|reads} <amount>.
There is tax on the tax {here|in this}, if I read it {right|correctly}.
{You|They} put the neighbour's meter on my {sheet|page}, {numbers|the serial} don't match.
According to you I owe <amount>. {According to me|By my count} it's {nothing|nil}.
The first month was {to be|meant to be} free, {page one|your letter} says <amount>.
Please {go over|look at} the sums for <month> {again|once more}, they make no sense to me.
I {won't|am not going to} pay <amount> before someone explains {line three|the second column}.
The night rate is {missing|not there}, everything is at day {price|rate} since <date>.
{Your app|The app} says <amount_2>, {your letter|the post} says <amount>, which is it?
A late fee of <amount>? It {left|went out of} my bank on <date>, {before|well before} the due day.
"""

BILLING_ERROR_ASIDES = """
The bill {itself|for <month>} is correct, {I checked|no quarrel there}.
You once charged me twice, in <month>, {but that was put right|all sorted since}.
I paid the <month> invoice {on time|on <date>}, <amount> {as usual|like always}.
My bills are {high|up} this winter, {like everyone's|but so be it}.
{Your invoices|The invoices} are hard to read, {but that is another story|though}.
The <month> invoice was wrong too, {but that's been corrected|you fixed that}.
I {pay|have paid} <amount> a month by direct debit for <years> years.
{I'm not disputing|I do not dispute} the invoice {at all|over <amount>}.
The new price of <amount> is {steep|fine by me}.
"""
