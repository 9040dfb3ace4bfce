"""What customers write when something fails or is misused: phrases for two demo intents."""

FAULT = """
{My|Our|The} {internet|connection|line} has been {down|out|dead} since <date>.
The <device> {keeps|is} {restarting|dropping out} {every evening|several times a day}.
We have no {power|electricity} {here|at <street>} since <day>.
The app {shows|gives} an error {when|each time} I {log in|open it}.
{Can|Could} you send {a technician|an engineer}, the <device> {doesn't work|is broken}?
{My|The} <plan> is {very slow|slow as anything} since <date>.
The display of {the|my} <device> is {blank|frozen}.
"""

FAULT_INDIRECT = """
Three {red|orange} lights on the <device> and {my|the} film won't load.
I'm {writing|typing} this from the {library|neighbour's}, mine is {as dead as a stone|gone again}.
{It goes|Everything goes} dark in the kitchen {whenever|when} the oven is on, the fuse is fine.
I {unplugged|reset} the <device>, waited {ten|five} minutes, plugged it in, {nothing|same story}.
My video calls {freeze|break up} {every afternoon|after lunch}, the boss is not amused.
The {charging post|charger} at <street> just blinks at my car {and that's it|for days}.
{Since|After} the storm on <date> we {sit by candlelight|are without}.
Your app {lets me in|opens} and then {shows me nothing|goes white}.
The <device> {hums|smells odd} and {is hot|clicks} to the touch.
The {card|chip} is fine, the reader at <town> doesn't {take|want} it, nor anybody else's.
My reading has said {0042|1177} for {weeks|a month} though {we cook|we heat} every day.
The code by text never {arrives|comes}, so I can't get into {my account|the app}.
{The|Our} phone has no {dial tone|ring}, my mother {can't|couldn't} call {out|anyone}.
<agent> {replaced|swapped} the <device> on <date>, it {lasted|held} two days.
The {lamps|lights} flicker {at night|all evening} and the fridge {starts over|gives up}.
The film stops, {spins|thinks}, goes on, stops. {Every evening|All weekend}.
I get {2|3|4} of the {100|250} promised at {best|night}, the cable is new.
{I see|There's} the network {on|in} my phone, but nothing {comes through|happens} in any room.
Half the street is {out|dark}, {are you|is someone} on it?
The page for paying {spins|hangs} for ever, {whatever|with any} browser.
Would {a visit|somebody} on <day> be possible, {it's|the thing is} dead again.
When I turn on the heat pump, the <device> {trips|says goodbye}.
"""

FAULT_ASIDES = """
The internet {was down|went out} in <month>, {but it has worked since|fixed since}.
{Everything works|It all works}, {no trouble there|touch wood}.
The <device> was {slow|broken} once, <agent> {fixed it|came by} in an hour.
{Your|The} website {crashed|froze} when I {tried|filled in the form}, hence this {mail|message}.
The engineer was here on <date>, {nice man|good work}.
I couldn't {reach|get} anyone by phone, the line {dropped|cut out} twice.
The <device> {still|does} its job {well|after <years> years}.
Sorry for the {short|late} message, the app {logged me out|hung} before.
"""

FRAUD = """
{I've lost|I lost} my Ostrelle card {in <town>|on <date>}, please block it.
My card was stolen {on <day>|in <town>}, {block|freeze} it {now|please}.
{Someone|Somebody} used my card at <shop> {for|and took} <amount>, that {wasn't|was not} me.
I think {my account has been hacked|someone is in my account}.
I {got|received} a {text|call} asking for my {PIN|password}, {was that|is it} really you?
{Somebody|Someone} {ordered|took out} <plan> in my name.
There's a payment {to|at} <shop> I {never made|know nothing about}, <amount> on <date>.
"""

FRAUD_INDIRECT = """
I was at home on <date>, so it can't have been me at <shop>.
My {bag|wallet|jacket} {stayed|is still} on the train to <town>, with {your card|everything} in it.
<shop>? I have never {set foot|been} there {in my life|at all}.
A {man|woman} who said {he was|it was} <agent> wanted to know my {PIN|code}, and I {told|gave} it.
{Who|So who} is charging a car on my {card|account} in <town>? I {ride a bike|don't drive}.
I {can't find|have turned the house over for} my card, {last seen|had it last} at <shop>.
{My|The} password was changed {at night|on <day>} and not by {me|anyone here}.
You thank me for my order of a <device>. What order?
{An e-mail|A mail} with your logo wants me to {confirm|type in} my bank details by <day>.
My {ex|former flatmate} still {has|knows} all my codes and {things|orders} keep appearing.
{Small|Little} sums go to <shop> every {night|few days}, <amount>, then <amount_2>.
A stranger {found|has} my card in <town> and {wrote to|rang} me, is it safe to {keep using|use} it?
I {clicked|pressed} the link in your text, now {I have|there is} a bad feeling.
A bill for <plan> came in my name, but I {never|did not} sign {anything|that}.
There's a second phone on my {account|profile}, and {it isn't|neither is} mine.
The {waiter|boy} at <shop> had my card {for ages|out of sight}, and {now look|then} <amount> went.
Somebody {came to|was at} the door, {showed|held up} an Ostrelle badge, and {copied|took} my papers.
{Nobody|No one} but me knows the code, yet <amount> {went|was gone} on <date>.
I {dropped|left} the card {somewhere|in a taxi} on <day> and {sleep|feel} badly until it is dead.
Was it you who {called|rang} from a hidden number about <amount>? {He knew|They had} my birthday.
Your letter welcomes a {Mr|Mrs} {Crane|Vole} at my address. {There is none|Who?}
Your mail says I logged in from {abroad|another country} at four. I was {asleep|in bed}.
"""

FRAUD_ASIDES = """
My card was {lost|stolen} in <month>, the new one {is here|came}, {all well|thanks}.
{I know|Yes, I know} the payment to <shop>, that was {me|my wife}.
I {thought|feared} it was a scam {at first|when you rang}, but <agent> {was real|was genuine}.
My {bank|mother's bank} had {a fraud case|hackers} last year, so I'm {careful|wary} with links.
I never {give|tell} my PIN to {anyone|anybody}, {don't worry|of course}.
I {found|have} my card again, {it was in|under} the {car|sofa}.
I changed my password on <date>, {just in case|as you advised}.
My wallet was stolen in <town>, {but your card wasn't in it|years ago}.
"""
