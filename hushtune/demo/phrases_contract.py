"""What customers write when they leave or move: phrases for two of the demo's intents.

`hushtune.demo.grammar` explains the notation. Each bank holds one phrase a line.
"""

CANCELLATION = """
{I want to|I'd like to|I need to} {cancel|end|stop} my <plan> {contract|plan} on <date>.
{Please take|Kindly take|Take} this as my notice for <plan>, last day <date>.
How do I get out of my <plan> contract {before|by} <date>?
I will not be renewing <plan> when the term runs out on <date>.
Do not roll <plan> over {again|for another year}, {please|thanks}, <date> is where it stops.
{Is|Would} <date> {be|still} early enough to give notice on <plan>?
What is the notice period on <plan>? I'd rather {not be|no longer be} with you by <month>.
"""

CANCELLATION_INDIRECT = """
After <years> years we are {parting ways|going our separate ways} in <month>.
Somebody else takes {me|us} on from <date>, so I {won't need|have no use for} you after that.
The <device> is {packed|back in its box}, where do I post it when I leave you?
I {signed|have signed} with another supplier and they start on <date>.
From <date> there should be nothing more between {you and me|us}.
We have decided to do without <plan> from <month> on.
You have had my last {payment|pound}, {close the book|call it a day} on <date>.
I found the same thing for <amount> a month elsewhere and {I'm switching|I will switch}.
{Nobody|No one} in this house uses <plan> any more, so {let it go|I am letting it go} in <month>.
{Enough|That's enough}, <years> years with you {will do|were plenty}, I'm leaving.
My late father had <plan> in his name and it {should stop|must end} now.
The term is up on <date> and {this time I won't be staying|I have other plans}.
{A discount|An offer} won't keep me, <agent> tried that already. Just confirm the end on <date>.
My son's {provider|supplier} is better and he set it all up for me, {so goodbye|so farewell} then.
The price letter says I {may|can} leave without a fee until <date> and {I will|so I do}.
{I was|We were} happy with <plan> for <years> years, but all things come to an end in <month>.
Which day is my last {with you|as a customer} if {I write today|this letter counts}?
When do I have to {return|hand in} the <device> once my <plan> has ended?
I don't want to be {a customer|on your books} next {year|month}, simple as that.
{We|I} only had <plan> for the {holiday let|office}, that is {sold|shut}, no need for it now.
Let <plan> {expire|run out} and {send nobody|don't call} to talk me round.
The fourteen days are not over, so I {take back|withdraw} my yes to <plan>.
"""

CANCELLATION_ASIDES = """
I {was going to|nearly did} cancel {last month|in <month>}, but {I'm staying|we stay} anyway.
{My sister|My neighbour} left you last year and {says|said} it took her weeks to get out.
I {don't want|am not asking} to end the contract, {just so you know|before you ask}.
{If this goes on|One more time and} I'm off to another supplier.
My old <plan> contract ended in <month> and I took the new one {straight away|the same day}.
I took back my notice {on <date>|after <agent> rang}, so that is {settled|done with}.
The offer to leave early came in the post, I {threw it away|didn't take it}.
Colleagues tell me to switch, {but I am loyal|but I can't be bothered}.
I only have <plan> until <month>, {if that matters|in case you need that}.
"""

RELOCATION = """
{We are|I am|I'm} moving to <new_address> on <date>, please {update|change} {my|our} address.
{Please|Could you} {send|post} everything to <new_address> from <date> {on|onwards}.
{My|Our} new address is <new_address>, {valid from|as of} <date>.
Can I take <plan> with me to <new_address> {in <month>|on <date>}?
I've moved. It's <new_address> now, {no longer|not} <street>.
Is <plan> {available|sold} in <town>? {We get|I get} the keys on <date>.
{Change|Correct} the address on my {file|account}, it {should read|must say} <new_address>.
"""

RELOCATION_INDIRECT = """
{We get|I pick up} the keys for <new_address> on <date>.
The van comes on <date> and after that you will find {me|us} at <new_address>.
Your letters still {go to|end up at} <street> and the {new tenant|new owner} is tired of {them|me}.
From <date> the lights should be on at <new_address> and off {here|at the old place}.
{My|Our} post has a new home: <new_address>.
I will hand over the flat on <date>, who reads the meter {there|that day}?
We sold the house. The buyers take over the meter on <date>, we {go|are off} to <town>.
{My daughter|My partner} and I are putting our households together at <new_address>.
New job in <town>, so {the <device>|the line} has to be there by <date>.
{As of|From} <month> I live with my {parents|son} in <town>, <plan> {comes with me|should follow}.
They renamed our street, it is {now|called} <new_street> {since|as of} <date>.
You have me down {at|as} number {4|12|31}, it's been <new_address> {since <month>|all along}.
{Will my|Does my} <plan> work at <new_address> or {do I need|must there be} a new socket?
Boxes everywhere! {What do you need|What must I do} before <date> so the new place has power?
The landlord of <new_address> asks who supplies the flat from <date>. {You do|That's you}, I hope?
I'm {leaving|out of} <street> on <date>, the <device> {comes|travels} with me.
I moved two floors up in the same {house|building}, so {the flat number|the meter} is another.
After the divorce I'm the one who goes, to <new_address>; she stays {put|where she is}.
{Same|The same} contract, same name, just {another|a different} front door: <new_address>.
Meter reading on the day we {locked up|left} <street>: {41877|20316|9942}. The new one follows.
My student room in <town> is {ready|mine} from <date>, I'd want <plan> there.
Where do you post things? Mine {should go to|belong at} <new_address> {for now|from now on}.
"""

RELOCATION_ASIDES = """
We moved here from <town> {years ago|in <month>}, {all fine with that|you have the address}.
I'm {not moving|still at <street>}, the address you have is {right|correct}.
{We might|We may} move next year, {but not yet|that's for later}.
I was in <town> {for work|at my son's} when {your letter|all this} came.
The flat {upstairs|next door} stands empty since the {tenants|neighbours} moved out.
You changed my address {fine|quickly} in <month>, thanks {again|for that}.
We have only just unpacked {here|after the move}.
The last tenant's post still comes to <street>, {by the way|but never mind}.
I {work|spend the week} in <town> and am only home {at weekends|on <day>}.
"""
